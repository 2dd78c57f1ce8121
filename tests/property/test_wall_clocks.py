"""Crontabs in every time zone of the world: each slot of the wall clock is one instant, and comes once."""

from __future__ import annotations

import datetime
import functools
import itertools
import zoneinfo
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.schedules import crontab

UTC = datetime.UTC
YEARS = range(2020, 2036)
ZONES = sorted(name for name in zoneinfo.available_timezones() if not name.startswith(("posix/", "right/")))


@functools.cache
def changes(zone: zoneinfo.ZoneInfo) -> tuple[datetime.datetime, ...]:
    """Return the midnights (UTC) before which clocks were changed."""
    return tuple(_changes(zone))


def _changes(zone: zoneinfo.ZoneInfo) -> Iterator[datetime.datetime]:
    moment, end = (datetime.datetime(year, 1, 1, tzinfo=UTC) for year in (YEARS[0], YEARS[-1] + 1))
    before = moment.astimezone(zone).utcoffset()
    while moment < end:
        moment += datetime.timedelta(days=1)
        now = moment.astimezone(zone).utcoffset()
        if now != before:
            yield moment
            before = now


def zones_apart() -> list[zoneinfo.ZoneInfo]:
    """Return one zone of each set whose clocks show the same: most names are other names of a few."""
    moments = [
        datetime.datetime(year, month, day, tzinfo=UTC)
        for year in YEARS
        for month in range(1, 13)
        for day in (1, 15)
    ]
    apart = {}
    for name in ZONES:
        zone = zoneinfo.ZoneInfo(name)
        apart[tuple(moment.astimezone(zone).utcoffset() for moment in moments)] = zone
    return list(apart.values())


def expected(
    one: crontab, start: datetime.datetime, end: datetime.datetime, zone: zoneinfo.ZoneInfo
) -> list[datetime.datetime]:
    """Return the instants of all slots, by trying every minute of the wall clock: the rule, spelled out."""
    found = set()
    wall = start.astimezone(zone).replace(tzinfo=None, second=0, microsecond=0) - datetime.timedelta(hours=4)
    last = end.astimezone(zone).replace(tzinfo=None) + datetime.timedelta(hours=4)
    while wall < last:
        if (
            wall.minute in one.minute
            and wall.hour in one.hour
            and wall.day in one.day_of_month
            and wall.month in one.month_of_year
            and wall.isoweekday() % 7 in one.day_of_week
        ):
            # The first of two; and where it is none, the time that a clock shows which was not put forward.
            offset = wall.replace(tzinfo=zone, fold=0).utcoffset()
            assert offset is not None
            found.add((wall - offset).replace(tzinfo=UTC))
        wall += datetime.timedelta(minutes=1)
    return sorted(instant for instant in found if start < instant <= end)


def walked(one: crontab, start: datetime.datetime, end: datetime.datetime) -> list[datetime.datetime]:
    """Return the instants that asking for the next run again and again gives."""
    found = []
    moment = one.next_run(start).astimezone(UTC)
    while moment <= end:
        found.append(moment)
        moment = one.next_run(moment).astimezone(UTC)
    return found


def test_in_every_zone_a_daily_slot_comes_once_a_day_through_all_changes() -> None:
    """At every change of 16 years: a slot each half hour, against the rule spelled out."""
    one = crontab("0,30", "*")
    seen = set()
    for zone in zones_apart():
        kinds = set()
        for change in changes(zone):
            before = (change - datetime.timedelta(days=1)).astimezone(zone).utcoffset()
            kind = (before, change.astimezone(zone).utcoffset())
            if kind in kinds:  # the same change every year: once is enough
                continue
            kinds.add(kind)
            seen.add(zone.key)
            one.tz = zone
            start, end = change - datetime.timedelta(days=1, hours=3), change + datetime.timedelta(hours=3)
            assert walked(one, start, end) == expected(one, start, end, zone), (zone, change)
    assert len(seen) > 40


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(ZONES),
    start=st.datetimes(
        datetime.datetime(2020, 1, 1), datetime.datetime(2035, 12, 31), timezones=st.just(UTC)
    ),
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=4),
    hours=st.sets(st.integers(0, 23), min_size=1, max_size=24),
    near_a_change=st.booleans(),
)
def test_runs_are_the_slots_from_any_start(
    name: str, start: datetime.datetime, minutes: set[int], hours: set[int], near_a_change: bool
) -> None:
    zone = zoneinfo.ZoneInfo(name)
    one = crontab(minutes, hours, tz=zone)
    if near_a_change:
        coming = [change for change in changes(zone) if change.year >= start.year]
        start = (
            start.replace(year=coming[0].year, month=coming[0].month, day=coming[0].day) if coming else start
        )
    end = start + datetime.timedelta(days=2)

    assert walked(one, start, end) == expected(one, start, end, zone)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(ZONES),
    start=st.datetimes(datetime.datetime(2020, 1, 1), datetime.datetime(2035, 1, 1), timezones=st.just(UTC)),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
)
def test_a_daily_run_comes_once_each_day_of_the_calendar(
    name: str, start: datetime.datetime, hour: int, minute: int
) -> None:
    zone = zoneinfo.ZoneInfo(name)
    one = crontab(minute, hour, tz=zone)

    runs = walked(one, start, start + datetime.timedelta(days=366))

    assert 365 <= len(runs) <= 367
    gaps = [later - earlier for earlier, later in itertools.pairwise(runs)]
    assert all(datetime.timedelta(hours=20) <= gap <= datetime.timedelta(hours=28) for gap in gaps)
