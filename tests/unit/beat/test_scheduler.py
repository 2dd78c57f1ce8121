"""Beat: which calls are sent when, and what is known after a restart."""

from __future__ import annotations

import datetime
import heapq
import pickle
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.beat import (
    BeatLazyFunc,
    PersistentScheduler,
    ScheduleEntry,
    Scheduler,
    SchedulingError,
    Service,
    event_t,
)
from celeriac.beat.leadership import new_holder
from celeriac.errors import ConfigError, TransportError
from celeriac.schedules import crontab, schedule
from celeriac.transports.schedule_file import file_timetable

UTC = datetime.UTC
START = datetime.datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)


class Clock:
    """A clock that a test turns: of the app, of schedules and of the scheduler."""

    def __init__(self) -> None:
        self.now = START

    def time(self) -> float:
        """Return seconds since the epoch."""
        return self.now.timestamp()

    monotonic = time

    def move(self, seconds: float) -> None:
        """Turn it."""
        self.now += datetime.timedelta(seconds=seconds)


class Timed(Celeriac):
    """An app that goes by a clock of ours, and keeps what it sends."""

    clock_of_test: Clock
    sent: list[tuple[datetime.datetime, str, Any]]
    failing: list[Exception]

    def now(self) -> datetime.datetime:
        """Return the time of the clock."""
        return self.clock_of_test.now.astimezone(self.timezone)

    def send_task(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Keep a call; fail where the test says so."""
        if self.failing:
            raise self.failing.pop()
        self.sent.append((self.clock_of_test.now, name, args))
        return SimpleNamespace(id="1")


@pytest.fixture
def app() -> Timed:
    """Return an app with a clock of its own."""
    one = Timed("beat", broker="memory://beat")
    one.clock_of_test, one.sent, one.failing = Clock(), [], []
    return one


def entries(**described: Any) -> dict[str, Any]:
    """Return a ``beat_schedule``: schedules by name; the task's name is the entry's."""
    return {name: {"task": f"t.{name}", "schedule": when} for name, when in described.items()}


def run(scheduler: Scheduler, app: Timed, seconds: float) -> None:
    """Tick for so long, sleeping as the scheduler says."""
    scheduler.clock = app.clock_of_test
    end = app.clock_of_test.now + datetime.timedelta(seconds=seconds)
    while app.clock_of_test.now < end:
        app.clock_of_test.move(min(scheduler.tick(), (end - app.clock_of_test.now).total_seconds()))


def names(app: Timed) -> list[str]:
    """Return the names of the tasks that were sent."""
    return [name for _, name, _ in app.sent]


# --- ticking ------------------------------------------------------------


def test_calls_are_sent_when_they_are_due(app: Timed) -> None:
    app.conf.beat_schedule = entries(often=20, each_minute=crontab())

    run(Scheduler(app), app, 61)

    assert [(round((at - START).total_seconds(), 2), name) for at, name, _ in app.sent] == [
        (20.0, "t.often"), (30.0, "t.each_minute"), (40.0, "t.often"), (60.0, "t.often"),
    ]  # fmt: skip


def test_a_day_of_many_entries_is_sent_to_the_last_call(app: Timed) -> None:
    app.conf.beat_schedule = entries(**{f"e{n}": crontab(n % 60, "*/6") for n in range(200)})

    run(Scheduler(app), app, 86400)

    assert len(app.sent) == 4 * 200
    assert all(at.second == 0 for at, _, _ in app.sent)


def test_nothing_due_is_slept_through_up_to_the_longest_interval(app: Timed) -> None:
    app.conf.beat_schedule = entries(late=crontab(0, 12))
    scheduler = Scheduler(app, max_interval=60)
    scheduler.clock = app.clock_of_test

    assert scheduler.tick() == 60
    assert Scheduler(app, schedule={}, lazy=True).tick() == 300


def test_a_clock_that_is_put_forward_sends_what_was_due_once(app: Timed) -> None:
    app.conf.beat_schedule = entries(often=20)
    scheduler = Scheduler(app)
    run(scheduler, app, 5)

    app.clock_of_test.move(3600)
    run(scheduler, app, 1)

    assert names(app) == ["t.often"]


def test_a_call_that_the_broker_did_not_take_is_sent_again_and_others_do_not_wait(
    app: Timed, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.beat_schedule = entries(once=crontab(1, 0), often=28)
    app.failing = [ConnectionError("the broker is away")]  # for `often`, at 28 s

    run(Scheduler(app), app, 34)

    assert [(round((at - START).total_seconds()), name) for at, name, _ in app.sent] == [
        (30, "t.once"), (33, "t.often"),
    ]  # fmt: skip
    assert "Couldn't apply scheduled task often: the broker is away; it is sent again in 5 s" in caplog.text


def test_changes_of_the_schedule_count_at_the_next_tick(app: Timed) -> None:
    scheduler = Scheduler(app)
    run(scheduler, app, 1)

    scheduler.add(name="new", task="t.new", schedule=schedule(10))
    run(scheduler, app, 11)
    scheduler.schedule.pop("new")
    run(scheduler, app, 30)

    assert names(app) == ["t.new"]


# --- entries ------------------------------------------------------------


def test_entries_that_are_wrong_are_left_out_and_said(app: Timed, caplog: pytest.LogCaptureFixture) -> None:
    app.conf.beat_schedule = {
        "good": {"task": "t.good", "schedule": 10},
        "never": {"task": "t.never", "schedule": crontab(0, 0, day_of_month=31, month_of_year=2)},
        "odd": {"task": "t.odd", "schedule": 10, "arguments": ()},
        "text": {"task": "t.text", "schedule": "hourly"},
        "none": 5,
    }

    run(Scheduler(app), app, 11)

    assert names(app) == ["t.good"]
    for name in ("never", "odd", "text", "none"):
        assert (
            f"The entry '{name}' is left out" in caplog.text
            or f"entry '{name}' of beat_schedule" in caplog.text
        )


def test_settings_are_merged_over_what_is_known(app: Timed) -> None:
    scheduler = Scheduler(app, schedule={})
    scheduler.update_from_dict(entries(stays=10, goes=10))
    scheduler.schedule["stays"].total_run_count = 7

    scheduler.merge_inplace(entries(stays=20, comes=30))

    known = {name: (one.schedule.seconds, one.total_run_count) for name, one in scheduler.schedule.items()}
    assert known == {"stays": (20, 7), "comes": (30, 0)}


def test_arguments_are_computed_when_they_are_sent(app: Timed) -> None:
    app.conf.beat_schedule = {
        "lazy": {
            "task": "t.lazy",
            "schedule": 10,
            "args": (BeatLazyFunc(int, "7"), 1),
            "kwargs": {"now": BeatLazyFunc(lambda: app.clock_of_test.now)},
        }
    }

    run(Scheduler(app), app, 11)

    assert app.sent[0][2] == ([7, 1], {"now": app.sent[0][0]})


def test_a_task_that_is_known_is_called_itself(app: Timed) -> None:
    called: list[Any] = []

    @app.task(name="t.known")
    def known(x: int) -> None: ...

    replaced: Any = known
    replaced.apply_async = lambda *args, **options: called.append((args, options))
    scheduler = Scheduler(app, schedule={})

    scheduler.apply_async(
        ScheduleEntry("e", "t.known", schedule=5, args=(1,), options={"queue": "q"}, app=app), advance=False
    )

    assert called == [(([1], {}), {"producer": None, "queue": "q"})]


def test_a_failure_to_send_names_the_entry(app: Timed) -> None:
    app.failing = [KeyError("x")]

    with pytest.raises(SchedulingError, match="scheduled task e: 'x'"):
        Scheduler(app).apply_async(ScheduleEntry("e", "t.e", schedule=5, app=app))


def test_an_entry_counts_and_copies_and_compares(app: Timed) -> None:
    one = ScheduleEntry("e", "t.e", schedule=crontab(0, 7), args=(1,), kwargs={"x": 2}, app=app)

    following = next(one)
    copy = pickle.loads(pickle.dumps(following))

    assert (following.total_run_count, following == one, copy == one, copy.name) == (1, True, True, "e")
    assert repr(one) == "<ScheduleEntry: e t.e(1, x=2) <crontab: 0 7 * * * (m/h/dM/MY/d)>"
    assert one.next(START).last_run_at == START
    assert (one < ScheduleEntry("f", "t", schedule=1), one == 5) == (True, False)
    assert one.is_due()[0] is False


def test_results_of_a_store_that_keeps_them_for_ever_are_cleaned_up(
    app: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Timed, "backend", SimpleNamespace(supports_autoexpire=False))

    assert list(Scheduler(app).schedule) == ["celery.backend_cleanup"]


def test_what_plug_ins_hand_on_to_celerys_scheduler_is_taken(app: Timed) -> None:
    class PlugIn(Scheduler):
        def populate_heap(self, event_t: Any = event_t, heapify: Any = heapq.heapify) -> None:
            super().populate_heap(event_t=event_t, heapify=heapify)

        def _when(self, entry: Any, next_time_to_run: Any, mktime: Any = None) -> float:
            return super()._when(entry, next_time_to_run, mktime=mktime)

        def tick(self, event_t: Any = event_t, min: Any = min, **heaps: Any) -> float:
            return self.adjust(super().tick(event_t=event_t, min=min, **heaps), drift=0)

    app.conf.beat_schedule = entries(often=20)
    scheduler = PlugIn(app)

    run(scheduler, app, 21)

    assert names(app) == ["t.often"]
    assert (scheduler.adjust(5), scheduler.adjust(0)) == (4.99, 0)


def test_a_time_zone_that_there_is_not_ends_the_start(app: Timed) -> None:
    app.conf.timezone = "Mars/Base"
    app.conf.beat_schedule = entries(often=20)

    with pytest.raises(ConfigError, match=r"timezone is 'Mars/Base'.*an IANA name such as"):
        Service(app, scheduler_cls=Scheduler).start()


@pytest.mark.parametrize(("setting", "synced"), [(3, [3, 6]), (0, [])])
def test_a_scheduler_is_told_to_keep_what_it_has_after_so_many_calls(
    app: Timed, setting: int, synced: list[int]
) -> None:
    app.conf.beat_sync_every = setting
    app.conf.beat_schedule = entries(often=1)
    kept: list[int] = []

    class Keeping(Scheduler):
        clock = app.clock_of_test
        sync_every = 180.0

        def sync(self) -> None:
            kept.append(len(app.sent))

        def tick(self, *_: Any, **__: Any) -> float:
            app.clock_of_test.move(super().tick())
            if len(app.sent) >= 7:
                service.stop()
            return 0

    service = Service(app, scheduler_cls=Keeping)
    service.start()

    assert kept == [0, *synced, 7]


# --- restarts ------------------------------------------------------------


def persistent(app: Timed, path: Path, **attributes: Any) -> PersistentScheduler:
    """Return a scheduler with a file."""
    kind = type("Clocked", (PersistentScheduler,), {"clock": app.clock_of_test, **attributes})
    made: PersistentScheduler = kind(app, schedule_filename=str(path))
    return made


def die(scheduler: PersistentScheduler) -> None:
    """Make a scheduler's lead look like that of a process that is not there any more."""
    term = scheduler._leadership.term
    assert term is not None
    who, _, where = new_holder().partition(" ")
    boot, namespace, _, _ = where.split("-")
    assert scheduler._timetable.take(f"{who} {boot}-{namespace}-1-dead", term, 0.0)


def test_after_a_sudden_end_nothing_is_doubled_and_what_was_missed_comes_once(
    app: Timed, tmp_path: Path
) -> None:
    app.conf.beat_schedule = entries(daily=crontab(0, 12), hourly=crontab(0))
    first = persistent(app, tmp_path / "schedule", look_seconds=3600)
    run(first, app, 13 * 3600)
    die(first)
    before = len(app.sent)
    assert before == 14

    second = persistent(app, tmp_path / "schedule")
    run(second, app, 1)
    assert len(app.sent) == before
    die(second)

    app.clock_of_test.move(30 * 3600)
    third = persistent(app, tmp_path / "schedule")
    run(third, app, 1)

    assert sorted(names(app)[before:]) == ["t.daily", "t.hourly"]
    assert third.schedule["hourly"].total_run_count == 14
    for one in (first, second, third):
        one.close()


def test_an_entry_that_was_never_sent_keeps_waiting_over_restarts(app: Timed, tmp_path: Path) -> None:
    app.conf.beat_schedule = entries(slow=100)
    first = persistent(app, tmp_path / "schedule")
    run(first, app, 1)
    first.close()
    app.clock_of_test.move(59)

    second = persistent(app, tmp_path / "schedule")
    run(second, app, 45)
    second.close()

    assert names(app) == ["t.slow"]


def test_runs_of_what_a_subclass_adds_are_known_after_a_restart(app: Timed, tmp_path: Path) -> None:
    class Own(PersistentScheduler):
        clock = app.clock_of_test

        def setup_schedule(self) -> None:
            super().setup_schedule()
            self.update_from_dict(entries(daily=crontab(0, 12)))

    first = Own(app, schedule_filename=str(tmp_path / "schedule"))
    run(first, app, 3600)
    first.close()
    app.clock_of_test.move(12 * 3600)

    second = Own(app, schedule_filename=str(tmp_path / "schedule"))
    run(second, app, 1)
    second.close()

    assert names(app) == ["t.daily"]
    assert second.schedule["daily"].total_run_count == 1


def test_a_file_that_is_no_schedule_is_moved_aside(
    app: Timed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "schedule"
    path.write_bytes(b"\x13\x57\x9a\xce" * 4096)  # such as Celery's own, a file of gdbm
    app.conf.beat_schedule = entries(often=10)

    scheduler = persistent(app, path)
    run(scheduler, app, 11)
    scheduler.close()

    assert names(app) == ["t.often"]
    assert "cannot be read (file is not a database); it is now" in caplog.text
    assert len(list(tmp_path.glob("schedule.unreadable-*"))) == 1


@pytest.mark.parametrize("opened_before", [True, False])
def test_a_file_that_is_damaged_is_moved_aside_once_whoever_finds_it_so(
    app: Timed, tmp_path: Path, caplog: pytest.LogCaptureFixture, opened_before: bool
) -> None:
    path = tmp_path / "schedule"
    app.conf.beat_schedule = entries(**{f"e{n}": 10 for n in range(100)})
    first = persistent(app, path)
    run(first, app, 1)
    first.close()
    both = [persistent(app, path) for _ in range(2 if opened_before else 0)]
    size = path.stat().st_size
    with path.open("r+b") as file:  # its first page, which says that it is a database, is as it was
        file.seek(4096)
        file.write(b"\xaa" * (size - 4096))

    both = both or [persistent(app, path) for _ in range(2)]
    for _ in range(12):
        for one in both:
            run(one, app, 1)
    for one in both:
        one.close()

    assert sorted(names(app)) == sorted([f"t.e{n}" for n in range(100)] * 2)
    assert "cannot be read (database disk image is malformed); it is now" in caplog.text
    assert len(list(tmp_path.glob("schedule.unreadable-*[0-9]"))) == 1


def test_a_folder_that_is_not_there_is_an_error(app: Timed, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="cannot be used: unable to open database file"):
        persistent(app, tmp_path / "nowhere" / "schedule")


def test_entries_that_are_gone_are_forgotten(app: Timed, tmp_path: Path) -> None:
    path = tmp_path / "schedule"
    app.conf.beat_schedule = entries(stays=10, goes=10)
    for described in (entries(stays=10, goes=10), entries(stays=10)):
        app.conf.beat_schedule = described
        scheduler = persistent(app, path)
        run(scheduler, app, 1)
        scheduler.close()

    store = file_timetable(str(path), "beat/celery")
    kept = [key for key, line in store.changes(0).lines.items() if line.value is not None]
    store.close()
    assert kept == ["run/stays"]


# --- the service ------------------------------------------------------------


def test_the_service_ticks_until_it_is_stopped(tmp_path: Path) -> None:
    app = Celeriac("served", broker="memory://served")
    app.conf.beat_schedule = {"now": {"task": "t.now", "schedule": 0.01}}
    started: list[Any] = []
    app.hooks.beat_init.connect(lambda sender, **_: started.append(sender), weak=False)
    service = Service(app, schedule_filename=str(tmp_path / "schedule"))
    thread = threading.Thread(target=service.start)
    thread.start()
    try:
        _until(lambda: app.transport.size("celery") > 2)
    finally:
        service.stop(wait=True)
        thread.join()
        app.hooks.beat_init.receivers = []

    assert started == [service]


def test_a_schedule_that_cannot_be_read_for_a_while_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    app = Celeriac("served", broker="memory://served2")
    ticks: list[int] = []

    class Flaky(Scheduler):
        def tick(self) -> float:
            ticks.append(1)
            if len(ticks) == 1:
                raise OSError("the database is away")
            service.stop()
            return 0

    service = Service(app, scheduler_cls=Flaky)
    service.start()

    assert len(ticks) == 2
    assert "the schedule cannot be followed" in caplog.text.lower()


def test_a_signal_that_does_not_wake_the_service_ends_it_all_the_same() -> None:
    app = Celeriac("served", broker="memory://served4")
    ticked = threading.Event()

    class Patient(Scheduler):
        def tick(self) -> float:
            ticked.set()
            return 3600

    service = Service(app, scheduler_cls=Patient)
    before = signal.signal(signal.SIGUSR2, lambda number, frame: service.stop())

    def stop() -> None:
        ticked.wait()
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)  # to this thread: as if it came too early

    killer = threading.Thread(target=stop)
    killer.start()
    service.start()
    killer.join()
    signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("name", ["celery.beat:PersistentScheduler", "celeriac.beat.scheduler.Scheduler"])
def test_schedulers_are_found_by_name(name: str) -> None:
    app = Celeriac("served", broker="memory://served3")

    assert isinstance(Service(app, scheduler_cls=name).get_scheduler(lazy=True), Scheduler)
    with pytest.raises(ConfigError, match="beat_scheduler 'nothing:X' cannot be loaded"):
        Service(app, scheduler_cls="nothing:X").get_scheduler()


def _until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    while not condition():
        pause.wait(0.01)
