"""Several schedulers of one app, the leading one killed again and again: is each slot sent once, and when?

``python -m faults.beats`` (`make beat-chaos`) kills 50 on each broker; `test_beats` kills three.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from celeriac import Celeriac
from celeriac.beat.tick_producer import task_id_of
from celeriac.connections import timetable_owner
from celeriac.message import Ack, Delivery, Once
from celeriac.ports import ConsumeSpec
from celeriac.remote.plan import plans_and_runs
from celeriac.schedules import schedule
from processes import Program, celery, user_environment
from servers import RabbitServer, RedisServer, Server

BEATS: Final = 3
ENTRIES: Final = 3
LATEST_SECONDS: Final = 10.0  # what is promised
_PATIENCE_SECONDS: Final = 30.0
_QUIET_SECONDS: Final = 0.5
_UTC: Final = datetime.UTC

PROGRAM: Final = f"""
import os, time
from celery import Celery
from celery.beat import BeatLazyFunc

app = Celery("beats", broker=os.environ["BROKER"], beat_store_url=os.environ.get("STORE") or None)
app.conf.beat_schedule = {{
    f"e{{number}}": {{"task": "t", "schedule": 1.0, "missed": "all", "args": (BeatLazyFunc(time.time),)}}
    for number in range({ENTRIES})
}}
"""


class Outcome(NamedTuple):
    """What became of the slots of a run."""

    slots: int
    doubled: int
    missing: int
    strange: int  # messages of no slot
    latest_seconds: float  # how late the latest was sent

    @property
    def is_right(self) -> bool:
        """Whether all is as promised."""
        return not (self.doubled or self.missing or self.strange) and self.latest_seconds <= LATEST_SECONDS


class Beats:
    """The schedulers of one app.

    Args:
        folder: Where they run.
        broker: Its URL.
        store: ``beat_store_url``; empty for what is chosen without.
    """

    def __init__(self, folder: Path, broker: str, store: str = "") -> None:
        (folder / "beats_prog.py").write_text(PROGRAM)
        self.app = Celeriac("beats", broker=broker, beat_store_url=store or None)
        self._folder = folder
        self._environment = user_environment(folder, BROKER=broker, STORE=store)
        self._stack = ExitStack()
        self._running: dict[int, Program] = {}

    def start(self) -> None:
        """Start one more."""
        command = celery("-A", "beats_prog", "beat", "-l", "info")
        program = self._stack.enter_context(Program(command, cwd=self._folder, env=self._environment))
        self._running[program.pid] = program

    def leader(self, other_than: int | None = None) -> int:
        """Return the process id of the one that leads, once one does."""
        end = time.monotonic() + _PATIENCE_SECONDS
        pause = threading.Event()
        while time.monotonic() < end:
            for pid, program in self._running.items():
                if pid != other_than and _leads(program.output):
                    return pid
            pause.wait(0.05)
        raise AssertionError("nobody leads:\n" + "\n".join(one.output for one in self._running.values()))

    def wait_for_calls(self, pid: int, count: int) -> None:
        """Wait until one has sent so many calls."""
        self._running[pid].wait_for("Sending due task", count=count)

    def kill(self, pid: int) -> None:
        """Kill one, and start another."""
        program = self._running.pop(pid)
        program.signal(signal.SIGKILL)
        program.finish()
        self.start()

    def freeze(self, pid: int) -> None:
        """Stop one as a suspended machine is, have another take over, and let it go on."""
        program = self._running[pid]
        program.signal(signal.SIGSTOP)
        try:
            self.leader(other_than=pid)
        finally:
            program.signal(signal.SIGCONT)
        program.wait_for("stands by")

    def stop(self) -> None:
        """Have all end in good order."""
        for program in self._running.values():
            program.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()
        self.app.close()


def play(beats: Beats, kills: int, chance: random.Random, *, freezes: bool = False) -> Outcome:
    """Kill the leading scheduler so often, and return what became of the slots.

    Args:
        beats: None runs yet.
        kills: How often.
        chance: Says when, and how.
        freezes: Whether some are frozen instead, so that they wake up when another leads.
    """
    for _ in range(BEATS):
        beats.start()
    for number in range(kills):
        leader = beats.leader()
        beats.wait_for_calls(leader, chance.randint(1, 2 * ENTRIES))
        threading.Event().wait(chance.random() * 0.05)  # so that it is anywhere between two calls
        if freezes and chance.random() < 0.2:
            beats.freeze(leader)
        else:
            beats.kill(leader)
        if sys.stdout.isatty():
            print(f"\r{number + 1} of {kills}", end="", flush=True)
    beats.wait_for_calls(beats.leader(), ENTRIES)
    beats.stop()
    return look(beats.app)


def look(app: Celeriac) -> Outcome:
    """Compare what is in the queue with the slots that there were."""
    owner = timetable_owner(app.conf, app.main)
    with closing(app.schedules._timetable()) as timetable:
        runs = plans_and_runs(timetable.changes(0).lines)[1]
    expected: dict[str, float] = {}  # task ids, and the times of their slots
    every = schedule(1.0)
    for name, run in runs.items():
        assert run.slot is not None
        slot, last = (datetime.datetime.fromtimestamp(at, _UTC) for at in (run.since, run.slot))
        while (slot := every.next_run(slot)) <= last:
            expected[task_id_of(Once(f"{owner}/{name}", slot.timestamp()))] = slot.timestamp()
    sent: list[tuple[str, float]] = asyncio.run(_all_calls(app))
    counted = Counter(task_id for task_id, _ in sent)
    return Outcome(
        slots=len(expected),
        doubled=sum(count - 1 for count in counted.values()),
        missing=len(expected.keys() - counted.keys()),
        strange=len(counted.keys() - expected.keys()),
        latest_seconds=max(at - expected.get(task_id, at) for task_id, at in sent),
    )


async def _all_calls(app: Celeriac) -> list[tuple[str, float]]:
    queue = app.router.find("celery")
    consumer = await app.transport.consumer(ConsumeSpec(queues=(queue,), node="look@beats"))
    found: list[tuple[str, float]] = []
    try:
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(_QUIET_SECONDS):
                    deliveries = await consumer.receive(1000)
                found += map(_call, deliveries)
                await consumer.settle([(delivery, Ack()) for delivery in deliveries])
    finally:
        await consumer.close()
    return found


def _call(delivery: Delivery) -> tuple[str, float]:
    arguments: Any = json.loads(delivery.envelope.body)[0]
    return delivery.envelope.headers["id"], arguments[0]


def _leads(output: str) -> bool:
    """Return whether what it said last of leading is that it does."""
    lines = [line for line in output.splitlines() if "leads; entries" in line or "stands by" in line]
    return bool(lines) and "leads; entries" in lines[-1]


def main(argv: Sequence[str] | None = None) -> int:
    """Kill leading schedulers on each broker and say what became of the slots."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--brokers", default="redis,sqlite,rabbitmq", help="of redis, sqlite, rabbitmq")
    options = parser.parse_args(argv)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    right = True
    try:
        for name in options.brokers.split(","):
            with tempfile.TemporaryDirectory() as folder:
                broker = broker_of(name, folder)
                began = time.monotonic()
                with Beats(Path(folder), broker) as beats:
                    outcome = play(beats, options.kills, random.Random(seed), freezes=True)
                seconds = time.monotonic() - began
                right = right and outcome.is_right
                print(
                    f"\r{name}: {options.kills} kills in {seconds:.0f} s, seed {seed}: {outcome}", flush=True
                )
    finally:
        Server.stop_all()
    return 0 if right else 1


def broker_of(name: str, folder: str) -> str:
    """Start a broker, redis, sqlite or rabbitmq, and return its URL."""
    if name == "sqlite":
        return f"sqlite:///{folder}/broker.db"
    server: Any = {"redis": RedisServer, "rabbitmq": RabbitServer}[name]()
    server.start()
    url: str = server.fresh_url()
    return url


if __name__ == "__main__":
    os.environ.setdefault("CELERIAC_REQUIRE_SERVERS", "1")
    sys.exit(main())
