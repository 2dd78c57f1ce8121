"""Crontabs: what their fields say, when they are due, and what is said of bad ones."""

from __future__ import annotations

import datetime
import pickle
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from celeriac.errors import CrontabSyntaxError, NeverDue, ScheduleError
from celeriac.schedules import MINUTE, BaseSchedule, crontab

UTC = datetime.UTC
NEW_YORK = ZoneInfo("America/New_York")


def at(text: str) -> datetime.datetime:
    """Return a time in UTC."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)


def app(now: datetime.datetime, zone: datetime.tzinfo = UTC, deadline_seconds: float | None = None) -> Any:
    """Return what a schedule wants of an app."""
    conf = SimpleNamespace(enable_utc=True, beat_cron_starting_deadline=deadline_seconds)
    return SimpleNamespace(timezone=zone, now=lambda: now.astimezone(zone), conf=conf)


# --- fields ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("*/20", {0, 20, 40}),
        ("5", {5}),
        ("58-1", {58, 59, 0, 1}),
        ("50-10/10", {50, 0, 10}),
        ("1, 3 ,5-6", {1, 3, 5, 6}),
        ("*/100", {0}),
    ],
)
def test_texts_are_numbers(text: str, numbers: set[int]) -> None:
    assert MINUTE.parse(text) == numbers


def test_names_are_numbers_and_ranges_of_them_wrap() -> None:
    one = crontab(0, 0, "Friday-mon", "*/10", "nov-FEB")

    assert one.day_of_week == {5, 6, 0, 1}
    assert one.day_of_month == {1, 11, 21, 31}
    assert one.month_of_year == {11, 12, 1, 2}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"minute": "61"}, r"minute of a crontab cannot be 61 in '61': it is 0 to 59"),
        ({"minute": 61}, r"minute of a crontab cannot be 61: it is 0 to 59"),
        ({"hour": [1, 24]}, r"hour of a crontab cannot be 24: it is 0 to 23"),
        ({"day_of_week": "mon-7"}, r"day_of_week of a crontab cannot be 7 in 'mon-7': it is 0 to 6"),
        (
            {"day_of_month": "*/0"},
            r"day_of_month of a crontab, '\*/0', cannot be read: step '0' is no number above 0",
        ),
        (
            {"month_of_year": "foo"},
            r"month_of_year .*'foo' is neither a number nor a name; allowed are .* 1 to 12",
        ),
        ({"minute": "1,"}, r"minute of a crontab, '1,', cannot be read: empty part"),
        ({"minute": "1-2-3"}, r"'2-3' is neither a number nor a name"),
        ({"day_of_week": "sun-"}, r"'' is neither a number nor a name"),
        ({"minute": "-5"}, "negative numbers not supported"),
        ({"minute": "*/"}, "empty filter"),
        ({"minute": "5/3"}, r"a step needs a range or '\*' before it"),
    ],
)
def test_a_bad_field_is_named_with_its_value_and_what_is_allowed(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ScheduleError, match=message):
        crontab(**fields)


@pytest.mark.parametrize("bad", [None, 3.5, b"1", {1: 2}, ["1"]])
def test_a_field_of_a_wrong_type_is_a_type_error(bad: Any) -> None:
    with pytest.raises(TypeError, match="hour of a crontab is an int, a str or an iterable of ints, not"):
        crontab(hour=bad)


def test_a_line_has_the_order_of_cron_and_five_fields() -> None:
    assert crontab.from_string(" */5  1 2 3\t4 ") == crontab(
        "*/5", 1, day_of_week=4, day_of_month=2, month_of_year=3
    )
    with pytest.raises(CrontabSyntaxError, match=r"five fields .*'\* \*' has 2"):
        crontab.from_string("* *")


def test_a_schedule_that_can_never_be_is_said_to_be_one() -> None:
    with pytest.raises(NeverDue, match="never due"):
        crontab(0, 0, day_of_month=31, month_of_year="feb,apr", app=app(at("2026-01-01"))).is_due(
            at("2026-01-01")
        )


def test_an_unknown_time_zone_is_named() -> None:
    with pytest.raises(ScheduleError, match="no time zone 'Mars/Olympus': give an IANA name"):
        crontab(tz="Mars/Olympus")


# --- when ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "after", "due"),
    [
        ("*/15 * * * *", "2026-05-05T12:34:56", "2026-05-05T12:45"),
        ("*/15 * * * *", "2026-05-05T12:45:00", "2026-05-05T13:00"),
        ("0 7 * * mon", "2026-05-05T12:00", "2026-05-11T07:00"),
        ("59 23 31 12 *", "2026-12-31T23:59:00", "2027-12-31T23:59"),
        ("0 0 29 2 sun", "2026-01-01T00:00", "2032-02-29T00:00"),
        ("0 0 13 * fri", "2026-05-05T00:00", "2026-11-13T00:00"),
    ],
)
def test_the_next_run_is_the_first_time_that_all_fields_allow(line: str, after: str, due: str) -> None:
    assert crontab.from_string(line).next_run(at(after)) == at(due)


def test_fields_are_read_in_the_apps_time_zone_or_in_its_own() -> None:
    now = at("2026-01-15T00:00")

    assert crontab(0, 9, app=app(now, NEW_YORK)).next_run(now) == at("2026-01-15T14:00")
    assert (
        crontab(0, 9, app=app(now, NEW_YORK), tz="Asia/Tokyo").next_run(now).isoformat()
        == "2026-01-16T09:00:00+09:00"
    )


def test_it_is_due_once_its_time_has_come() -> None:
    one = crontab(0, 9, app=app(at("2026-01-15T09:00:02"), deadline_seconds=None))

    assert one.is_due(at("2026-01-14T09:00")) == (True, 86398.0)
    assert one.is_due(at("2026-01-15T09:00:00.5")) == (False, 86398.0)
    assert one.is_due(datetime.datetime(2026, 1, 14, 9)) == (True, 86398.0)  # naive: UTC
    assert one.remaining_estimate(at("2026-01-14T09:00")) == datetime.timedelta(seconds=-2)


@pytest.mark.parametrize(("deadline_seconds", "is_due"), [(None, True), (59, False), (61, True), (0, False)])
def test_a_run_missed_by_more_than_the_deadline_is_passed_over(
    deadline_seconds: float | None, is_due: bool
) -> None:
    one = crontab(0, "*/4", app=app(at("2026-01-15T08:01"), deadline_seconds=deadline_seconds))

    assert one.is_due(at("2025-12-01T00:00")) == (is_due, 3 * 3600 + 59 * 60)


def test_runs_left_of_an_hour_that_has_ended_are_not_lost() -> None:
    one = crontab("*/10", "8,9", app=app(at("2026-01-15T10:30")))

    assert one.is_due(at("2026-01-15T09:31"))[0]


# --- objects -------------------------------------------------------------------------------------------


def test_equal_ones_allow_the_same_in_the_same_zone() -> None:
    assert crontab("*/30", tz="UTC") == crontab([0, 30], tz="UTC")
    assert crontab() != crontab(tz="UTC")
    assert crontab() != crontab(nowfun=datetime.datetime.now)
    assert crontab() != "* * * * *"


def test_a_copy_by_pickle_keeps_fields_zone_and_clock_but_no_app() -> None:
    one = crontab("*/5", nowfun=_now, tz=NEW_YORK, app=app(at("2026-01-01")))

    copy = pickle.loads(pickle.dumps(one))

    assert copy == one
    assert (copy.tz, copy.app, copy.now()) == (NEW_YORK, None, at("2026-01-01"))


def test_a_subclass_may_set_its_zone_before_anything_else() -> None:
    class Zoned(crontab):
        def __init__(self, zone: datetime.tzinfo) -> None:
            self.tz = zone
            super().__init__(0, 9)

    assert Zoned(NEW_YORK).next_run(at("2026-01-15")) == at("2026-01-15T14:00")


def test_without_an_app_it_is_utc() -> None:
    one = crontab()

    assert (one.tz, one.utc_enabled, one.app) == (UTC, True, None)
    assert abs(one.now() - datetime.datetime.now(UTC)) < datetime.timedelta(minutes=1)
    assert one.to_local(datetime.datetime(2026, 1, 1)) == at("2026-01-01")


def test_a_schedule_of_ones_own_has_to_say_when() -> None:
    with pytest.raises(NotImplementedError, match="BaseSchedule has no is_due"):
        BaseSchedule().is_due(at("2026-01-01"))
    with pytest.raises(NotImplementedError, match="remaining_estimate"):
        BaseSchedule().remaining_estimate(at("2026-01-01"))


def _now() -> datetime.datetime:
    return datetime.datetime(2026, 1, 1)
