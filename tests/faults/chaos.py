"""Many calls while a random worker is killed every few seconds: what the ledger says, beside real Celery.

Run as ``python -m faults.chaos`` with ``tests`` and ``benchmarks`` on the path; `make chaos` does.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sides import celery

from faults.brokers import Broker, Kind, Servers
from faults.checker import Findings, judge
from faults.field import Field
from faults.ledger import keys
from faults.table import AGAIN, NODE_LOST, NODE_LOST_ON_RABBITMQ, Ack
from redis_probe import command

WORKERS = 3
SENDING_SECONDS = 60.0  # about: the calls are spread over it, so that there are enough kills


@dataclass(frozen=True, slots=True)
class Round:
    """What is run, and how hard.

    Attributes:
        real: Whether it is real Celery.
        kind: The broker.
        ack: How tasks are acknowledged.
        calls: How many are sent.
        pause_seconds: Between two kills.
        seed: For who is killed.
    """

    real: bool
    kind: Kind
    ack: Ack
    calls: int
    pause_seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a round."""

    round: Round
    findings: Findings
    kills: int
    done: int
    seconds: float


def play(one: Round, servers: Servers, folder: Path) -> Verdict:
    """Run a round."""
    broker = Broker(one.kind, servers, folder, results_elsewhere=one.kind in ("rabbitmq", "quorum"))
    field = Field(
        broker,
        folder,
        pool="prefork",
        late=one.ack == "late",
        seed=one.seed,
        settings={"task_max_deliveries": 0},
        celery_python=celery() if one.real else None,
    )
    try:
        return _judged(one, field)
    finally:
        field.close()


def _judged(one: Round, field: Field) -> Verdict:
    began = time.monotonic()
    for _ in range(WORKERS):
        field.start_worker()
    kills = _kill_while_sending(one, field)
    promise = AGAIN if one.ack == "late" else NODE_LOST
    if one.ack == "early" and one.kind in ("rabbitmq", "quorum"):
        promise = NODE_LOST_ON_RABBITMQ
    left = field.see_through(silent_deaths=promise.dies == "silently")
    if one.real and one.kind == "redis":
        left |= set(_unacknowledged(field.broker.url))
    entries = field.entries()
    return Verdict(
        one, judge(entries, promise, left), kills, len(keys(entries, "end")), time.monotonic() - began
    )


def _kill_while_sending(one: Round, field: Field) -> int:
    """Kill a worker now and then, and start another, until everything is sent; return how many were."""
    dice = random.Random(one.seed)
    sender = field.start_sender("call", one.calls, "nap", SENDING_SECONDS / one.calls)
    kills = 0
    following = time.monotonic() + one.pause_seconds
    while "sent" not in sender.output:
        time.sleep(max(0.05, min(0.5, following - time.monotonic())))
        if time.monotonic() < following:
            continue
        victim = dice.choice(field.nodes[-WORKERS:])
        victim.signal_all(signal.SIGKILL)
        victim.program.finish()
        field.nodes.remove(victim)
        field.start_worker()
        kills += 1
        following = time.monotonic() + one.pause_seconds
    sender.finish()
    return kills


def _unacknowledged(url: str) -> Iterator[str]:
    """Yield the calls that real Celery's dead workers hold on Redis until their visibility timeout."""
    for value in command(url, "HVALS", "unacked"):
        yield json.loads(value)[0]["headers"]["id"]


def main() -> int:
    """Run what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between two kills")
    parser.add_argument("--brokers", default="sqlite,redis,rabbitmq,quorum")
    parser.add_argument("--without-celery", action="store_true", help="run ours only")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    console, table = Console(), Table(title=f"{arguments.calls:,} calls, a kill every {arguments.pause} s")
    for column in ("", "broker", "ack", "kills", "done", "lost", "stuck", "died", "again", "broken", "s"):
        table.add_column(column)
    servers, bad = Servers(), 0
    try:
        for one in _rounds(arguments):
            folder = Path(tempfile.mkdtemp(prefix="celeriac-chaos-"))
            verdict = play(one, servers, folder)
            shutil.rmtree(folder, ignore_errors=True)
            table.add_row(*_cells(verdict))
            console.print(" ".join(_cells(verdict)), verdict.findings, highlight=False)
            bad += bool(verdict.findings.broken) and not one.real
    finally:
        servers.stop()
    console.print(table)
    return 1 if bad else 0


def _rounds(arguments: argparse.Namespace) -> Iterator[Round]:
    acks: tuple[Ack, Ack] = ("late", "early")
    for kind in arguments.brokers.split(","):
        for ack in acks:
            for real in (False, True):
                if real and (arguments.without_celery or kind == "sqlite"):  # it has no such broker
                    continue
                yield Round(real, kind, ack, arguments.calls, arguments.pause, arguments.seed)


def _cells(verdict: Verdict) -> list[str]:
    found = verdict.findings
    broken = sum(len(calls) for name, calls in found.broken.items() if name not in ("lost", "stuck"))
    return [
        "Celery" if verdict.round.real else "ours",
        verdict.round.kind,
        verdict.round.ack,
        str(verdict.kills),
        str(verdict.done),
        str(len(found.lost)),
        str(len(found.stuck)),
        str(len(found.died)),
        str(len(found.repeated)),
        str(broken),
        f"{verdict.seconds:.0f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
