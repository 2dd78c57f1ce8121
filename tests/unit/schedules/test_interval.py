"""Intervals and events of the sun."""

from __future__ import annotations

import datetime
import pickle
import sys
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from celeriac.errors import ConfigError, NeverDue, ScheduleError
from celeriac.schedules import maybe_schedule, schedule, solar, sun

UTC = datetime.UTC
BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime.datetime:
    """Return a time in UTC."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_an_interval_is_due_when_it_has_passed() -> None:
    one = schedule(30, nowfun=lambda: at("2026-01-01T00:00:30"))

    assert one.is_due(at("2026-01-01T00:00:00")) == (True, 30.0)
    assert one.is_due(at("2026-01-01T00:00:10")) == (False, 10.0)
    assert one.is_due(datetime.datetime(2026, 1, 1)) == (True, 30.0)


def test_an_interval_is_of_real_seconds_where_clocks_are_changed() -> None:
    last = datetime.datetime(2026, 3, 28, 12, tzinfo=BERLIN)

    one = schedule(86400, nowfun=lambda: last)

    assert one.remaining_estimate(last) == datetime.timedelta(days=1)


@pytest.mark.parametrize(
    ("seconds", "due"),
    [
        (86400 * 2, "2026-05-07T00:00"),
        (7200, "2026-05-05T14:00"),
        (90, "2026-05-05T12:36"),
        (5, "2026-05-05T12:35:01"),
    ],
)
def test_a_relative_interval_ends_at_whole_days_hours_or_minutes(seconds: float, due: str) -> None:
    last = at("2026-05-05T12:34:56.789")

    one = schedule(seconds, relative=True, nowfun=lambda: last)

    assert last + one.remaining_estimate(last) == at(due)


def test_intervals_look_compare_and_copy() -> None:
    one = schedule(90, True, tz="Europe/Berlin")

    copy = pickle.loads(pickle.dumps(one))

    assert (repr(one), one.seconds, copy, copy.relative, copy.tz) == (
        "<freq: 1.50 minutes>",
        90.0,
        one,
        True,
        BERLIN,
    )
    assert one == datetime.timedelta(seconds=90) != 90
    assert schedule(-3).seconds == 0


@pytest.mark.parametrize("bad", [None, "x", float("nan"), 1e300])
def test_what_is_no_interval_is_refused(bad: Any) -> None:
    with pytest.raises(ScheduleError, match="an interval"):
        schedule(bad)


def test_numbers_become_schedules_and_schedules_get_the_app() -> None:
    one = solar("sunset", 0, 0)
    app: Any = object()

    assert maybe_schedule(5) == maybe_schedule(datetime.timedelta(seconds=5)) == schedule(5)
    assert maybe_schedule(one, app=app) is one
    assert one.app is app
    assert maybe_schedule(None) is None


# --- the sun ---------------------------------------------------------------------------------------------


def test_the_sun_rises_in_berlin() -> None:
    rising = solar("sunrise", 52.52, 13.405).next_run(at("2026-06-21T00:00"))

    assert abs(rising - at("2026-06-21T02:43")) < datetime.timedelta(minutes=2)  # 04:43, says any almanac


def test_it_is_due_once_the_event_has_been() -> None:
    noon = solar("solar_noon", 0, 0).next_run(at("2026-03-01T00:00"))

    one = solar("solar_noon", 0, 0, nowfun=lambda: noon + datetime.timedelta(seconds=1))

    due, next_seconds = one.is_due(at("2026-03-01T00:00"))
    assert due
    assert 86000 < next_seconds < 86800
    assert one.is_due(noon + datetime.timedelta(milliseconds=500))[0] is False


def test_it_waits_through_a_polar_night() -> None:
    rising = solar("sunrise", 78.2, 15.6).next_run(at("2026-11-15T00:00"))

    assert at("2027-02-10T00:00") < rising < at("2027-02-25T00:00")


def test_an_event_that_never_comes_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sun.EVENTS, "sunset", sun.EVENTS["sunset"]._replace(horizon="85"))

    with pytest.raises(NeverDue, match=r"solar: sunset at latitude 60.* within a year"):
        solar("sunset", 60, 0).next_run(at("2026-01-01T00:00"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("noon", 0, 0), r"event 'noon' .* one of dawn_astronomical, .*solar_noon"),
        (("sunset", 91, 0), "latitude 91 .* -90 to 90"),
        (("sunset", 0, -181), "longitude -181 .* -180 to 180"),
    ],
)
def test_bad_events_and_places_are_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        solar(*arguments)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ephem", None)

    with pytest.raises(ConfigError, match=r"pip install 'celeriac\[solar\]'"):
        solar("sunset", 0, 0)


def test_places_look_compare_and_copy() -> None:
    one = solar("dusk_civil", 1.5, -2, nowfun=_now)

    copy = pickle.loads(pickle.dumps(one))

    assert (repr(one), copy) == ("<solar: dusk_civil at latitude 1.5, longitude: -2>", one)
    assert copy.nowfun is _now
    assert solar("dusk_civil", 1, 2) != one != 5


def _now() -> datetime.datetime:
    return datetime.datetime(2026, 1, 1)
