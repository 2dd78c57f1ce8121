"""A year of a scheduler in seconds: clocks are set, it dies, its store is away: what becomes of each slot?

All is in memory and goes by a clock that is turned, so a seed gives the same year again.
``python -m faults.year`` (`make beat-years`) plays many; `test_year` plays a few.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import itertools
import json
import logging
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple

from celeriac import Celeriac
from celeriac.beat import BeatLazyFunc, PersistentScheduler
from celeriac.beat.tick_producer import task_id_of
from celeriac.errors import TransportError
from celeriac.message import Ack, Once
from celeriac.ports import ConsumeSpec
from celeriac.remote.plan import plans_and_runs
from celeriac.timetable import Timetable
from celeriac.transports.memory_timetable import MemoryTimetable
from faults.almanac import START, Periodic, Span, became_of, periodic

TAKEOVER_SECONDS: Final = 10.0  # what is promised
_HOUR: Final = 3600.0
_DAY: Final = 24 * _HOUR
_YEAR: Final = 365 * _DAY
_LOOK_SECONDS: Final = 6 * _HOUR  # of who leads: what there is to see is told to it, see `_look_soon`
_MOST_AT_ONCE: Final = 20_000  # ticks while the clock stands still
_YEARS: Final = itertools.count()


class Death(BaseException):
    """What kills a scheduler."""


class Turned:
    """A wall clock that is set, and a monotonic one that goes on."""

    def __init__(self) -> None:
        self._passed = 0.0
        self._offset = START

    def time(self) -> float:
        """Return what the wall clock shows."""
        return self._passed + self._offset

    def monotonic(self) -> float:
        """Return the seconds since the year began."""
        return self._passed

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._passed += seconds

    def set(self, seconds: float) -> None:
        """Set the wall clock forward, or back."""
        self._offset += seconds


class Timed(Celeriac):
    """An app that goes by such a clock."""

    turned: Turned

    def now(self) -> datetime.datetime:
        """Return what its wall clock shows."""
        return datetime.datetime.fromtimestamp(self.turned.time(), self.timezone)


class Store:
    """A timetable that can be away, and whose writer can die before it has written."""

    address = "memory"

    def __init__(self) -> None:
        self.away = False
        self.deadly = False
        self._kept = MemoryTimetable()

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise TransportError("The store is away.")
        if self.deadly and name == "write":
            self.deadly = False
            raise Death
        return getattr(self._kept, name)


class Event(NamedTuple):
    """Something that happens in the year."""

    at: float  # seconds since it began
    kind: str
    seconds: float


def events(chance: random.Random) -> list[Event]:
    """Return what happens in a year, in order."""

    def some(kind: str, number: int, *seconds: tuple[float, float]) -> Iterable[Event]:
        for _ in range(number):
            yield Event(chance.uniform(_HOUR, _YEAR), kind, round(chance.uniform(*chance.choice(seconds)), 1))

    happening = [
        *some("set", 12, (0.1, 20), (60, 2 * _HOUR), (_HOUR, 3 * _DAY)),
        *some("set", 12, (-20, -0.1), (-2 * _HOUR, -60), (-1.5 * _DAY, -_HOUR)),
        *some("stop", 12, (1, 60), (60, 6 * _HOUR), (_DAY, 6 * _DAY)),
        *some("kill", 12, (0, 30), (60, 6 * _HOUR), (_DAY, 3 * _DAY)),
        *some("die between", 15, (0, 30), (60, 6 * _HOUR), (_DAY, 3 * _DAY)),
        *some("freeze", 8, (20, 600), (_HOUR, 2 * _DAY)),
        *some("store away", 8, (5, 60), (60, _HOUR)),
    ]
    return sorted(happening)


class Year:
    """Plays a year, and keeps what there is to know about it.

    Args:
        seed: Of what happens.
    """

    def __init__(self, seed: int) -> None:
        self.spans: list[Span] = []
        self.latest_takeover_seconds: float = 0.0
        self.clock = Turned()
        self.app = Timed("year", broker=f"memory://year{next(_YEARS)}")
        self.app.turned = self.clock
        self._chance = random.Random(seed)
        self.deadline_seconds: float | None = self._chance.choice([None, None, _HOUR])
        self.app.conf.update(timezone="Europe/Berlin", beat_cron_starting_deadline=self.deadline_seconds)
        self.entries: list[Periodic] = periodic()
        self.app.conf.beat_schedule = {
            one.name: {
                "task": one.name,
                "schedule": one.schedule,
                "missed": one.missed,
                "args": (BeatLazyFunc(self.clock.time),),
            }
            for one in self.entries
        }
        self._store = Store()
        self._slots: dict[str, float] = {}  # by the ids of calls
        self._served: set[str] = set()  # entries that were sent at this instant
        self._begun: float | None = None  # the span that lasts
        self._scheduler = self._another()

    def play(self) -> None:
        """Let a year pass."""
        self._await_the_lead()
        for event in events(self._chance):
            if event.at > self.clock.monotonic():  # else others took longer
                self._run_to(event.at)
                getattr(self, f"_{event.kind.replace(' ', '_')}")(event.seconds)
        self._run_to(max(_YEAR, self.clock.monotonic() + 1))
        self._end()
        self._scheduler.close()

    def sent(self) -> dict[str, list[tuple[float, float]]]:
        """Return which slots were sent, and when, by entry; takes the calls from the broker."""
        found: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for headers, body in asyncio.run(self._calls()):
            found[headers["task"]].append((self._slots[headers["id"]], json.loads(body)[0][0]))
        return found

    def passed_over(self) -> dict[str, int]:
        """Return how often each entry was passed over."""
        _, runs = plans_and_runs(self._store.changes(0).lines)
        return {name: run.passed_over for name, run in runs.items()}

    # --- what happens -------------------------------------------------------------------------------

    def _set(self, seconds: float) -> None:
        self._end()
        self.clock.set(seconds)
        self._look_soon()
        self._begin()

    def _stop(self, seconds: float) -> None:
        self._end()
        self._scheduler.close()
        self.clock.advance(seconds)
        self._scheduler = self._another()
        self._await_the_lead()

    def _kill(self, seconds: float) -> None:
        self._end()
        self.clock.advance(seconds)
        self._scheduler = self._another()
        self._await_the_lead()

    def _die_between(self, seconds: float) -> None:
        """Have it die when it has sent a call and not yet noted that."""
        self._store.deadly = True
        try:
            self._run_to(self.clock.monotonic() + 2 * _DAY)
        except Death:
            self._end(frozenset(self._served))
            self.clock.advance(seconds)
            self._scheduler = self._another()
            self._await_the_lead()

    def _freeze(self, seconds: float) -> None:
        """Have another take over; the frozen one goes on with what it was about to send, later."""
        frozen = self._scheduler
        self._kill(0.0)
        self._run_to(self.clock.monotonic() + seconds)
        frozen._next_look = self.clock.monotonic() + 0.5
        for _ in range(_MOST_AT_ONCE):
            if frozen.tick() > 0:
                break
        frozen.close()

    def _store_away(self, seconds: float) -> None:
        self._end()
        self._store.away = True
        self._scheduler._next_look = self.clock.monotonic()
        self._pass(seconds, look_seconds=10.0)
        self._store.away = False
        self._look_soon()
        self._begin()

    # --- passing time -------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        """Have the one that leads look within a second, as it does; time passes until then."""
        self._scheduler._next_look = self.clock.monotonic()
        self.clock.advance(self._chance.uniform(0.0, 1.0))

    def _run_to(self, at: float) -> None:
        self._pass(at - self.clock.monotonic(), look_seconds=_LOOK_SECONDS)

    def _pass(self, seconds: float, look_seconds: float) -> None:
        """Tick, sleeping as long as the scheduler says."""
        end = self.clock.monotonic() + seconds
        scheduler, still = self._scheduler, 0
        scheduler.look_seconds = look_seconds
        while (left := end - self.clock.monotonic()) > 1e-6:
            wait = scheduler.tick()
            still = 0 if wait > 0 else still + 1
            assert still < _MOST_AT_ONCE, "it ticks in a circle"
            if wait > 0:
                self._served.clear()
                self.clock.advance(min(wait, left))

    def _await_the_lead(self) -> None:
        began = self.clock.monotonic()
        scheduler = self._scheduler
        scheduler.look_seconds = 1.0
        while True:
            self._begin()
            wait = scheduler.tick()
            if scheduler._leadership.term is not None:
                break
            self._begun = None
            self.clock.advance(wait)
        took = self.clock.monotonic() - began
        self.latest_takeover_seconds = max(self.latest_takeover_seconds, took)

    def _begin(self) -> None:
        self._begun = self.clock.time()

    def _end(self, served: frozenset[str] | None = None) -> None:
        assert self._begun is not None
        self.spans.append(Span(self._begun, self.clock.time(), served))
        self._begun = None

    def _another(self) -> PersistentScheduler:
        year = self

        class One(PersistentScheduler):
            clock = year.clock

            def open_timetable(self) -> Timetable:
                return year._store

            def _send_call(self, entry: Any, once: Once, run: Any, *, in_doubt: bool) -> bool:
                year._slots[task_id_of(once)] = once.number
                year._served.add(entry.name)
                return super()._send_call(entry, once, run, in_doubt=in_doubt)

        return One(self.app)

    async def _calls(self) -> list[tuple[dict[str, Any], bytes]]:
        size = self.app.transport.size("celery")
        queue = self.app.router.find("celery")
        consumer = await self.app.transport.consumer(ConsumeSpec(queues=(queue,), node="look@year"))
        found: list[tuple[dict[str, Any], bytes]] = []
        while len(found) < size:
            deliveries = await consumer.receive(1000)
            found += [(one.envelope.headers, one.envelope.body) for one in deliveries]
            await consumer.settle([(delivery, Ack()) for delivery in deliveries])
        await consumer.close()
        return found


class Outcome(NamedTuple):
    """What became of a year."""

    due: int  # slots
    sent: int
    late: int  # of these, more than the promise: their time had passed before somebody led
    passed_over: int  # slots, by their entries' policies
    latest_takeover_seconds: float
    wrong: list[str]  # what is not as the policies say

    @property
    def is_right(self) -> bool:
        """Whether each slot became what its policy says, as soon as is promised."""
        return not self.wrong and self.latest_takeover_seconds <= TAKEOVER_SECONDS


def play(seed: int) -> Outcome:
    """Play a year and compare what was sent with what its almanac says."""
    year = Year(seed)
    with closing(year.app):
        year.play()
        sent, times_passed_over = year.sent(), year.passed_over()
    due = owed = late = passed_over = 0
    wrong = []
    for entry in year.entries:
        expected = became_of(entry, year.spans, year.deadline_seconds)
        due, owed = due + expected.due, owed + len(expected.sent)
        passed_over += expected.due - len(expected.sent)
        late += sum(at - slot > TAKEOVER_SECONDS for slot, at in expected.sent)
        wrong += differences(entry, expected.sent, sent[entry.name])
        # A call whose sender died before it could note it is one that nobody knows of.
        if not 0 <= times_passed_over[entry.name] - expected.times_passed_over <= expected.unnoted:
            wrong.append(
                f"{entry.name}: passed over {times_passed_over[entry.name]} times, "
                f"not {expected.times_passed_over}"
            )
    return Outcome(due, owed, late, passed_over, year.latest_takeover_seconds, wrong)


def differences(
    entry: Periodic, expected: Sequence[tuple[float, float]], sent: Sequence[tuple[float, float]]
) -> list[str]:
    """Return where what was sent first leaves what was expected: slots and when they were sent."""
    for there, here in itertools.zip_longest(expected, sent):
        if (
            there is None
            or here is None
            or any(abs(a - b) > entry.tolerance_seconds for a, b in zip(there, here, strict=True))
        ):
            return [f"{entry.name}: expected {_shown(there)}, and {_shown(here)} came"]
    return []


def _shown(pair: tuple[float, float] | None) -> str:
    if pair is None:
        return "nothing"
    slot, at = (datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat() for moment in pair)
    return f"{slot} sent at {at}"


def main(argv: Sequence[str] | None = None) -> int:
    """Play years and say what became of their slots."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--years", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="of the first year; the next ones follow")
    options = parser.parse_args(argv)
    first = random.randrange(10**6) if options.seed is None else options.seed
    logging.getLogger("celery.beat").setLevel(logging.CRITICAL)
    right = True
    for seed in range(first, first + options.years):
        began = time.process_time()
        outcome = play(seed)
        right = right and outcome.is_right
        print(f"seed {seed}, {time.process_time() - began:.1f} s: {outcome}", flush=True)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
