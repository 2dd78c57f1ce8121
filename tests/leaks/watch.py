"""A worker and a client at work, looked at all the time while their connections are cut now and then."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from faults.brokers import Broker
from leaks.growth import Growth, growths
from leaks.vitals import Census, Sample
from processes import ROOT, Program, user_environment

CHILDREN = 2
STEP_PATIENCE_SECONDS = 300.0  # for a hang: until the next step of a run


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done.

    Attributes:
        calls: How many calls are sent; a multiple of the steps.
        steps: Into how many parts they are cut; after each, everything is looked at.
        cuts: How often all connections are reset meanwhile, where there are any.
        pool: The worker's pool.
    """

    calls: int
    steps: int
    cuts: int
    pool: str = "prefork"


@dataclass(slots=True)
class Watched:
    """What was seen of a run.

    Attributes:
        samples: Of every process, at every step.
        growths: What came of them.
        wrong: What the client said about calls that did not come to what they have to.
        refused: How many calls the broker did not take, and were sent again.
        cut: How many connections were cut.
    """

    samples: list[Sample] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    refused: int = 0
    cut: int = 0


def watch(broker: Broker, folder: Path, plan: Plan, tell: Callable[[int], None]) -> Watched:
    """Run a plan on a broker, and return what was seen.

    Args:
        broker: The broker, empty; the connections to it go through its proxies.
        folder: An empty folder.
        plan: What to do.
        tell: Told how many calls have ended, at every step.

    Raises:
        AssertionError: The worker or the client has ended, or hangs.
    """
    step = plan.calls // plan.steps
    watched = Watched()
    with contextlib.ExitStack() as open_programs:
        worker = open_programs.enter_context(_worker(broker, folder, plan.pool))
        client = open_programs.enter_context(_client(broker, folder, plan.calls, step))
        census = Census(client.pid, worker.pid)
        for number in range(1, plan.steps + 1):
            done = number * step
            _await(client, done, worker)
            watched.samples += census.take(done)
            client.signal(signal.SIGUSR1)
            tell(done)
            if number * plan.cuts // plan.steps > (number - 1) * plan.cuts // plan.steps:
                watched.cut += _cut(broker)
        client.finish()
        worker.stop()
    lines = client.output.splitlines()
    watched.wrong = [line for line in lines if line.startswith("wrong ")]
    watched.refused = sum(line.startswith("refused ") for line in lines)
    watched.growths = growths(watched.samples, plan.calls)
    return watched


def _await(client: Program, done: int, worker: Program) -> None:
    try:
        client.wait_for(rf"^done {done}$", STEP_PATIENCE_SECONDS)
    except AssertionError as exc:
        raise AssertionError(f"{exc}\nthe worker has said:\n{worker.output}") from exc


def _cut(broker: Broker) -> int:
    return sum(proxy.cut() for proxy in (broker.proxy, broker.client_proxy) if proxy is not None)


def _worker(broker: Broker, folder: Path, pool: str) -> Program:
    size = [] if pool == "solo" else ["-c", str(CHILDREN)]
    command = [sys.executable, "-m", "celeriac", "-A", "leaks.program", "worker", "-n", "leaks@here"]
    # It makes all of its log lines; hundreds of megabytes of tracebacks need not be kept.
    command += ["-P", pool, *size, "-l", "INFO", "-f", os.devnull]
    environment = _environment(folder, broker.through(broker.url), broker.through(broker.results))
    return Program(command, cwd=folder, env=environment)


def _client(broker: Broker, folder: Path, calls: int, step: int) -> Program:
    url = broker.for_client()
    results = url if broker.results == broker.url else broker.results
    command = [sys.executable, "-m", "leaks.client", str(calls), str(step)]
    return Program(command, cwd=folder, env=_environment(folder, url, results))


def _environment(folder: Path, broker: str, results: str) -> dict[str, str]:
    environment = user_environment(folder, LEAKS_BROKER=broker, LEAKS_RESULTS=results)
    environment["PYTHONPATH"] += f":{ROOT / 'tests'}"
    return environment
