"""Which slot of a schedule is owed, by the policy for missed runs."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from celeriac.errors import ScheduleError
from celeriac.schedules import MissedPolicy, Owed, crontab, owed, schedule
from celeriac.schedules.missed import checked_policy
from celeriac.schedules.written import Written, read, write

UTC = datetime.UTC
NOON = datetime.datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def at(text: str) -> datetime.datetime:
    """Return a time of that day: ``12:30`` or ``12:30:15``."""
    return datetime.datetime.fromisoformat(f"2026-03-01T{text}").replace(tzinfo=UTC)


HOURLY = crontab(0)
MINUTELY = schedule(60)


@pytest.mark.parametrize(
    ("when", "last", "now", "policy", "expected"),
    [
        # nothing is due yet
        (HOURLY, "12:00", "12:59:30", "once", (None, None, 30)),
        (MINUTELY, "12:00:10", "12:01:00", "all", (None, None, 10)),
        # one is due
        (HOURLY, "12:00", "13:00", "once", ("13:00", "13:00", 3600)),
        (HOURLY, "12:00", "13:00", "skip", ("13:00", "13:00", 3600)),
        (HOURLY, "12:00", "13:00", "all", ("13:00", "13:00", 0)),
        (MINUTELY, "12:00:10", "12:01:12", "once", ("12:01:10", "12:01:10", 58)),
        # it is late by as much as another scheduler needs to take over
        (HOURLY, "12:00", "13:00:15", "skip", ("13:00", "13:00", 3585)),
        (HOURLY, "12:00", "13:00:16", "skip", (None, "13:00", 3584)),
        # several are due
        (HOURLY, "12:00", "16:30", "once", ("16:00", "16:00", 1800)),
        (HOURLY, "12:00", "16:30", "all", ("13:00", "13:00", 0)),
        (HOURLY, "12:00", "16:30", "skip", (None, "16:00", 1800)),
        (HOURLY, "12:00", "16:00:05", "skip", ("16:00", "16:00", 3595)),
        (MINUTELY, "12:00:10", "12:05:30", "once", ("12:05:10", "12:05:10", 40)),
        (MINUTELY, "12:00:10", "12:05:30", "skip", (None, "12:05:10", 40)),
        (MINUTELY, "12:00:10", "12:05:30", "all", ("12:01:10", "12:01:10", 0)),
        # an interval that goes by the clock on the wall
        (schedule(3600, relative=True), "12:20", "13:10", "once", ("13:00", "13:00", 3000)),
        (schedule(3600, relative=True), "12:20", "17:10", "once", ("17:00", "17:00", 3000)),
    ],
)
def test_what_is_owed(
    when: Any, last: str, now: str, policy: MissedPolicy, expected: tuple[Any, ...]
) -> None:
    slot, upto, wait_seconds = expected

    found = owed(when, at(last), at(now), policy)

    assert found == Owed(None if slot is None else at(slot), None if upto is None else at(upto), wait_seconds)


@pytest.mark.parametrize(
    ("policy", "deadline_seconds", "slot", "upto"),
    [
        ("once", 1800, "16:00", "16:00"),
        ("once", 1799, None, "16:00"),
        ("all", 2 * 3600, "15:00", "15:00"),
        ("all", 5400, "15:00", "15:00"),
        ("all", 5399, "16:00", "16:00"),
        ("all", 60, None, "16:00"),
        ("skip", 7200, None, "16:00"),
    ],
)
def test_a_deadline_counts_whatever_the_policy(
    policy: MissedPolicy, deadline_seconds: float, slot: str | None, upto: str
) -> None:
    found = owed(HOURLY, at("12:00"), at("16:30"), policy, deadline_seconds)

    assert (found.slot, found.upto) == (None if slot is None else at(slot), at(upto))


def test_each_missed_run_comes_once_in_order() -> None:
    last, now, slots = at("12:00"), at("16:30"), []

    while (found := owed(HOURLY, last, now, "all")).slot is not None:
        slots.append(found.slot)
        last = found.slot

    assert slots == [at("13:00"), at("14:00"), at("15:00"), at("16:00")]


@pytest.mark.parametrize("policy", ["once", "all"])
def test_a_relative_interval_of_days_is_due_at_each_midnight_of_its_zone(policy: MissedPolicy) -> None:
    daily = schedule(86400, relative=True, tz="Europe/Berlin")
    last = start = datetime.datetime(2026, 10, 23, 22, 0, tzinfo=UTC)  # clocks are put back on the 25th
    slots = []

    for hour in range(1, 24 * 4):
        now = start + datetime.timedelta(hours=hour)
        while (found := owed(daily, last, now, policy)).slot is not None:
            assert found.slot > last
            slots.append(found.slot)
            last = found.slot

    assert [f"{slot:%d %H}" for slot in slots[:3]] == ["24 22", "25 23", "26 23"]


def test_the_last_midnight_is_found_over_changes_of_the_clock() -> None:
    every_other = schedule(2 * 86400, relative=True, tz="Europe/Berlin")
    start, now = (datetime.datetime(2026, month, 2, 12, tzinfo=UTC) for month in (10, 12))

    one_by_one = start
    while (following := every_other.next_run(one_by_one)) <= now:
        one_by_one = following

    assert owed(every_other, start, now, "once").slot == one_by_one


def test_a_relative_hour_goes_on_where_clocks_are_put_back_by_half_an_hour() -> None:
    hourly = schedule(3600, relative=True, tz="Australia/Lord_Howe")
    moment, slots = datetime.datetime(2026, 4, 4, 13, 0, tzinfo=UTC), []  # put back at 15:00

    for _ in range(4):
        moment = hourly.next_run(moment)
        slots.append(moment)

    assert [f"{slot:%H:%M}" for slot in slots] == ["14:00", "15:00", "15:30", "16:30"]


def test_a_schedule_of_another_class_is_asked_and_named_by_its_last_run() -> None:
    class Odd(schedule):
        def is_due(self, last_run_at: datetime.datetime) -> tuple[bool, Any]:
            return last_run_at.minute == 0, 7

    assert owed(Odd(60), at("12:00"), at("12:00:30")) == Owed(at("12:00"), None, 7)
    assert owed(Odd(60), at("12:01"), at("13:00")) == Owed(None, None, 7)


def test_an_interval_of_nothing_is_always_due() -> None:
    assert owed(schedule(0), at("12:00"), at("12:01"), "all") == Owed(at("12:01"), at("12:01"), 0)


def test_a_policy_that_there_is_not() -> None:
    with pytest.raises(ScheduleError, match="missed='twice' says nothing: it is 'skip'"):
        checked_policy("twice")


@pytest.mark.parametrize(
    ("when", "written"),
    [
        (schedule(1.5), Written(every_seconds=1.5)),
        (schedule(60, relative=True), Written(every_seconds=60, relative=True)),
        (crontab("*/5", [8, 9], "mon-fri"), Written(crontab="*/5 8,9 * * mon-fri")),
        (crontab(0, 7, tz="Asia/Tokyo"), Written(crontab="0 7 * * *", tz="Asia/Tokyo")),
    ],
)
def test_schedules_are_written_and_read_back(when: Any, written: Written) -> None:
    assert write(when) == written
    assert read(written) == when


def test_a_schedule_that_has_no_form_is_refused() -> None:
    with pytest.raises(ScheduleError, match="class object cannot be kept"):
        write(object())
