"""Several schedulers of one app, and periodic tasks that are changed while they run."""

from __future__ import annotations

import cProfile
import datetime
import itertools
import logging
import pstats
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.beat import PersistentScheduler
from celeriac.beat.agenda import Agenda
from celeriac.beat.leadership import Leadership, is_gone, new_holder
from celeriac.clock import FakeClock
from celeriac.errors import ScheduleError, TransportError
from celeriac.remote.schedules import Schedules
from celeriac.schedules import crontab
from celeriac.timetable import Timetable
from celeriac.transports.memory_timetable import MemoryTimetable

START = 1_800_000_000.0
_BROKERS = itertools.count()


class Turned(Celeriac):
    """An app whose time a test turns."""

    turned: FakeClock

    def now(self) -> datetime.datetime:
        """Return the time of the clock."""
        return datetime.datetime.fromtimestamp(self.turned.time(), self.timezone)


class Fleet:
    """Schedulers that share a timetable and a broker."""

    def __init__(self) -> None:
        self.clock = FakeClock(START)
        self.app = Turned("fleet", broker=f"memory://fleet{next(_BROKERS)}")
        self.app.turned = self.clock
        self.timetable: Any = MemoryTimetable()
        self.app.schedules = _SchedulesOf(self.app, self.timetable)

    def scheduler(self) -> PersistentScheduler:
        """Return one more."""
        timetable = self.timetable

        class One(PersistentScheduler):
            clock = self.clock

            def open_timetable(self) -> Timetable:
                return timetable  # type: ignore[no-any-return]  # whatever the test has put there

        return One(self.app)

    def run(self, seconds: float, *schedulers: PersistentScheduler) -> None:
        """Tick all of them for so long."""
        end = self.clock.time() + seconds
        while self.clock.time() < end:
            wait = min(scheduler.tick() for scheduler in schedulers)
            self.clock.advance(min(wait, end - self.clock.time()))

    def sent(self) -> int:
        """Return how many calls are in the queue."""
        return self.app.transport.size("celery")


class _SchedulesOf(Schedules):
    def __init__(self, app: Celeriac, timetable: Timetable) -> None:
        super().__init__(app)
        self._kept = timetable

    def _timetable(self) -> Timetable:
        return self._kept


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Yield a fleet without schedulers; what people change is dated by its clock."""
    fleet = Fleet()
    monkeypatch.setattr("celeriac.remote.schedules.time.time", fleet.clock.time)
    yield fleet
    fleet.app.close()


def every(seconds: float, **more: Any) -> dict[str, Any]:
    """Return an entry."""
    return {"task": "t", "schedule": seconds, **more}


def leads(scheduler: PersistentScheduler) -> bool:
    """Return whether it leads, as far as it knows."""
    return scheduler._leadership.term is not None


# --- leading ------------------------------------------------------------


def test_one_of_several_sends(fleet: Fleet) -> None:
    fleet.app.conf.beat_schedule = {"e": every(10)}
    three = [fleet.scheduler() for _ in range(3)]

    fleet.run(35, *three)

    assert [leads(one) for one in three] == [True, False, False]
    assert fleet.sent() == 3


def test_a_scheduler_sleeps_no_longer_than_the_longest_interval(fleet: Fleet) -> None:
    fleet.app.conf.beat_max_loop_interval = 0.25
    leading, standing_by = fleet.scheduler(), fleet.scheduler()

    assert [one.tick() for one in (leading, standing_by, leading, standing_by)] == [0.25] * 4


def test_one_that_resigns_is_followed_at_the_next_look(fleet: Fleet) -> None:
    fleet.app.conf.beat_schedule = {"e": every(10)}
    first, second = fleet.scheduler(), fleet.scheduler()
    fleet.run(15, first, second)

    first.close()
    fleet.run(1, second)

    assert leads(second)
    fleet.run(4.5, second)
    assert fleet.sent() == 2


def test_one_that_is_silent_is_followed_within_ten_seconds_and_then_changes_nothing(fleet: Fleet) -> None:
    fleet.app.conf.beat_schedule = {"e": every(1, missed="all")}
    first, second = fleet.scheduler(), fleet.scheduler()
    fleet.run(3.5, first, second)
    assert fleet.sent() == 3

    fleet.run(9, second)  # the first is frozen
    assert leads(second)
    assert fleet.sent() == 12

    # It wakes up in the middle of a tick, and sends what it was about to send.
    first._next_look = fleet.clock.monotonic() + 0.5
    assert leads(first)
    while first.tick() == 0:
        pass
    assert not leads(first)
    fleet.run(2, first, second)
    assert fleet.sent() == 14
    assert fleet.app.schedules.list()[0].times == 14


def test_a_death_between_sending_and_noting_neither_loses_nor_doubles(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.app.conf.beat_schedule = {"e": every(10), "f": every(10)}
    first, second = fleet.scheduler(), fleet.scheduler()
    fleet.run(5, first, second)

    def dies(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fleet.timetable, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        fleet.run(20, first)
    assert fleet.sent() == 1
    monkeypatch.undo()

    fleet.run(12, second)
    assert fleet.sent() == 4  # two slots of two entries


def test_who_comes_later_waits_for_its_turn(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first, second = fleet.scheduler(), fleet.scheduler()

    fleet.run(30, first, second)

    assert caplog.text.count("leads; this scheduler stands by") == 1


@pytest.mark.parametrize("seconds", [5, 7])
def test_who_leads_is_taken_for_dead_after_a_while(seconds: float) -> None:
    clock, timetable = FakeClock(), MemoryTimetable()
    first, second = Leadership(timetable, clock), Leadership(timetable, clock)
    assert first.ask()
    assert not second.ask()

    clock.advance(seconds)

    assert second.ask() is (seconds > 6)


def test_a_holder_whose_process_is_not_there_is_gone() -> None:
    holder = new_holder()
    who, _, where = holder.partition(" ")
    boot, namespace, start, _ = where.split("-")

    assert not is_gone(holder)
    assert is_gone(f"{who} {boot}-{namespace}-{int(start) - 1}-x")
    assert not is_gone(f"{who} another-{namespace}-{start}-x")
    assert not is_gone("another scheduler")
    assert not is_gone("")


# --- the store ------------------------------------------------------------


class Moody:
    """A timetable that can be away."""

    address = "moody"

    def __init__(self) -> None:
        self.kept = MemoryTimetable()
        self.away = False

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise TransportError("The store is away.")
        return getattr(self.kept, name)


def test_while_the_store_is_away_nothing_is_sent_and_then_all_that_is_owed(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.timetable = Moody()
    fleet.app.conf.beat_schedule = {
        "all": every(1, missed="all"),
        "once": every(1),
        "skip": every(1, missed="skip"),
    }
    scheduler = fleet.scheduler()
    fleet.run(1.5, scheduler)
    before = fleet.sent()
    fleet.timetable.away = True
    fleet.run(30, scheduler)
    assert fleet.sent() == before
    assert scheduler.trouble == "the timetable at moody cannot be used"

    fleet.timetable.away = False
    fleet.run(1.5, scheduler)
    assert scheduler.trouble is None

    # The store is back for the look at 32 s; the one slot of the others stands for all before.
    assert {info.name: info.times for info in _infos(fleet)} == {"all": 32, "once": 2, "skip": 2}
    assert fleet.sent() == 36
    assert caplog.text.count("The timetable cannot be used: The store is away.") == 1
    assert "can be used again" in caplog.text


def _infos(fleet: Fleet) -> Any:
    fleet.app.schedules = _SchedulesOf(fleet.app, fleet.timetable)
    return fleet.app.schedules.list()


# --- changes ------------------------------------------------------------


def test_what_is_added_counts_within_two_seconds(fleet: Fleet) -> None:
    scheduler, other = fleet.scheduler(), fleet.scheduler()
    fleet.run(5, scheduler, other)

    fleet.app.schedules.add("new", "t.new", 5, args=[1], kwargs={"x": 2}, options={"queue": "other"})
    fleet.run(2, scheduler, other)

    [info] = fleet.app.schedules.list()
    assert (info.name, info.task, info.origin, info.schedule) == (
        "new",
        "t.new",
        "added",
        "<freq: 5.00 seconds>",
    )
    fleet.run(4, scheduler, other)
    assert fleet.app.transport.size("other") == 1
    scheduler.close()
    fleet.run(5, other)  # the next one knows it, too
    assert fleet.app.transport.size("other") == 2


def test_an_entry_of_the_code_is_changed_and_changed_back(fleet: Fleet) -> None:
    fleet.app.conf.beat_schedule = {"e": every(100)}
    scheduler = fleet.scheduler()
    fleet.run(1, scheduler)

    fleet.app.schedules.update("e", schedule=2, missed="skip")
    fleet.run(5.5, scheduler)
    assert fleet.sent() == 2
    assert fleet.app.schedules.list()[0].origin == "changed"
    assert fleet.app.schedules.list()[0].missed == "skip"

    fleet.app.schedules.remove("e")
    fleet.run(50, scheduler)
    assert fleet.sent() == 2
    assert fleet.app.schedules.list()[0].origin == "code"


def test_an_entry_that_was_added_and_is_in_the_code_now_is_told(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.app.schedules.add("e", "t.added", 2, options={"queue": "added"})
    fleet.app.conf.beat_schedule = {"e": every(2), "f": every(2)}

    fleet.run(5, fleet.scheduler())

    assert caplog.text.count("There are two entries named 'e'") == 1
    assert (fleet.app.transport.size("added"), fleet.sent()) == (2, 2)


def test_a_paused_entry_is_not_sent_and_misses_nothing(fleet: Fleet) -> None:
    fleet.app.conf.beat_schedule = {"e": every(10, missed="all")}
    scheduler = fleet.scheduler()
    fleet.run(1, scheduler)

    fleet.app.schedules.pause("e")
    fleet.run(100, scheduler)
    assert fleet.sent() == 0
    assert fleet.app.schedules.list()[0].next_run is None

    fleet.app.schedules.resume("e")
    fleet.run(9, scheduler)
    assert fleet.sent() == 0
    fleet.run(3, scheduler)
    assert fleet.sent() == 1


def test_each_request_to_run_now_is_met_once_also_of_a_paused_entry(fleet: Fleet) -> None:
    fleet.app.conf.beat_schedule = {"e": every(1000)}
    scheduler, other = fleet.scheduler(), fleet.scheduler()
    fleet.run(1, scheduler, other)
    fleet.app.schedules.pause("e")

    fleet.app.schedules.run_now("e")
    fleet.app.schedules.run_now("e")
    fleet.run(3, scheduler, other)
    assert fleet.sent() == 2

    scheduler.close()
    fleet.run(3, other)
    assert fleet.sent() == 2
    fleet.app.schedules.run_now("e")
    fleet.run(2, other)
    assert fleet.sent() == 3


def test_what_is_removed_is_not_sent_any_more(fleet: Fleet) -> None:
    scheduler = fleet.scheduler()
    fleet.app.schedules.add("e", "t", 2)
    fleet.run(3.5, scheduler)
    assert fleet.sent() == 1

    fleet.app.schedules.remove("e")
    fleet.run(10, scheduler)

    assert fleet.sent() == 1
    assert not fleet.app.schedules.list()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.add("e", "t", 5), "there is an entry named 'e' already"),
        (lambda s: s.add("x", "t", crontab(0, 0, day_of_month=31, month_of_year=2)), "never due"),
        (lambda s: s.add("x", "t", "hourly"), "cannot be kept in a store"),
        (lambda s: s.add("x", 5, 5), "the name of one, not 5"),
        (lambda s: s.add("x", "t", 5, args=[object()]), "such as JSON knows"),
        (lambda s: s.add("x", "t", 5, missed="twice"), "missed='twice'"),
        (lambda s: s.pause("ee"), "no entry named 'ee'; did you mean 'e'"),
        (lambda s: s.remove("e"), "is in the code"),
    ],
)
def test_changes_that_cannot_be_are_refused(
    fleet: Fleet, change: Callable[[Schedules], None], says: str
) -> None:
    fleet.app.conf.beat_schedule = {"e": every(5)}

    with pytest.raises(ScheduleError, match=says):
        change(fleet.app.schedules)
    assert not fleet.timetable.changes(0).lines


def test_a_line_that_cannot_be_read_is_said_and_left_out(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.app.conf.beat_schedule = {"e": every(5)}
    fleet.timetable.edit("plan/bad", b"\xff", 0)
    fleet.timetable.edit(
        "plan/zone",
        b'{"name":"zone","added":true,"entry":{"task":"t",'
        b'"schedule":{"crontab":"0 1 * * *","tz":"Mars/Base"}}}',
        0,
    )
    scheduler = fleet.scheduler()

    fleet.run(6, scheduler)

    assert fleet.sent() == 1
    assert "the line 'plan/bad' of the timetable cannot be read" in caplog.text
    assert "The entry 'zone' cannot be as its plan says: there is no time zone 'Mars/Base'" in caplog.text


def test_two_periodic_tasks_of_one_name_are_told(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    signature = fleet.app.signature("t")

    for seconds in (5, 5, 7):
        fleet.app.add_periodic_task(seconds, signature, name="twice", missed="all")

    assert fleet.app.conf.beat_schedule["twice"]["schedule"] == 7
    assert fleet.app.conf.beat_schedule["twice"]["missed"] == "all"
    assert caplog.text.count("There are two periodic tasks named 'twice'") == 1


def test_the_status_tells_who_leads_and_how_late_that_is(fleet: Fleet) -> None:
    fleet.app.conf.beat_schedule = {"e": every(10), "paused": every(5)}
    assert fleet.app.schedules.status().sends is False
    scheduler = fleet.scheduler()
    fleet.app.schedules.pause("paused")
    fleet.run(11, scheduler)

    status = fleet.app.schedules.status()
    assert status.leader == scheduler._leadership.holder.partition(" ")[0]
    assert (status.sends, status.lag_seconds, status.entries) == (True, 0, 2)
    assert status.next_run == datetime.datetime.fromtimestamp(START + 20, datetime.UTC)

    fleet.clock.advance(60)
    late = fleet.app.schedules.status()
    assert (late.sends, late.lag_seconds) == (False, 51)


def test_a_leader_that_is_dead_does_not_send_though_nothing_is_due(fleet: Fleet) -> None:
    fleet.app.conf.beat_schedule = {"e": every(86400)}
    fleet.run(2, fleet.scheduler())
    assert fleet.app.schedules.status().sends

    fleet.clock.advance(15)  # nobody ticks any more

    dead = fleet.app.schedules.status()
    assert (dead.leads, dead.sends, dead.lag_seconds) == (False, False, 0)
    assert 15 <= dead.silent_seconds <= 17


def test_each_run_is_told_to_those_who_listen(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.app.conf.beat_schedule = {"e": every(10)}
    fleet.app.conf.task_send_sent_event = True
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "celeriac.events.dispatcher.EventDispatcher.send",
        lambda self, kind, **fields: told.append({"type": kind, **fields}),
    )
    scheduler = fleet.scheduler()

    fleet.run(10.5, scheduler)
    scheduler.close()

    runs = [one for one in told if one["type"] == "beat-run"]
    assert runs == [
        {"type": "beat-run", "name": "e", "task": "t", "slot": START + 10, "lag": 0.0, "next": START + 20}
    ]


# --- size ------------------------------------------------------------


def test_a_tick_costs_the_same_with_ten_thousand_entries(fleet: Fleet) -> None:
    calls = {}
    for count in (100, 10_000):
        small = Fleet()
        small.app.conf.beat_schedule = {f"e{number}": every(1000 + number) for number in range(count)}
        scheduler = small.scheduler()
        small.run(1000.5, scheduler)  # the first call connects
        small.clock.advance(1)
        scheduler._next_look = small.clock.monotonic() + 0.1  # looks are not what is counted
        profile = cProfile.Profile()
        profile.runcall(scheduler.tick)
        calls[count] = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]  # not in the stubs
        assert small.sent() == 2
        small.app.close()

    assert calls[10_000] < 1.2 * calls[100] < 1000


def test_the_agenda_knows_the_last_time_of_each_name() -> None:
    agenda = Agenda()
    for name, time in (("a", 5), ("b", 3), ("a", 1), ("a", 4), ("c", 2)):
        agenda.put(name, time)
    agenda.drop("c")

    found = []
    while (first := agenda.first()) is not None:
        found.append(first)
        agenda.drop(first[1])

    assert found == [(3, "b"), (4, "a")]
