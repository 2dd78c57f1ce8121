"""Which wall-clock times a crontab allows, and which instants these are where clocks are changed.

The rule: a time that is skipped comes as much later as the clock was put forward, and a time that comes twice
counts when it comes first. So each slot is one instant; slots that meet in one instant are one
(`docs/decisions/110-crontabs-where-clocks-change.md`).
"""

from __future__ import annotations

import datetime
from bisect import bisect_left
from calendar import monthrange
from collections.abc import Iterable, Iterator
from typing import Final

from celeriac.errors import NeverDue

__all__ = ["WallClockSlots", "next_instant", "previous_instant"]

_UTC: Final = datetime.UTC
_DAY: Final = datetime.timedelta(days=1)
_MINUTE: Final = datetime.timedelta(minutes=1)
_LONGEST_MONTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_YEARS_SEARCHED: Final = 48  # 29 February comes on a given weekday after 40 years at the latest


class WallClockSlots:
    """The times of day and the days on which something is due, by any wall clock.

    Args:
        minute: 0 to 59.
        hour: 0 to 23.
        day_of_week: 0 (Sunday) to 6.
        day_of_month: 1 to 31.
        month_of_year: 1 to 12.
    """

    __slots__ = ("_days", "_hours", "_minutes", "_months", "_weekdays")

    def __init__(
        self,
        minute: Iterable[int],
        hour: Iterable[int],
        day_of_week: Iterable[int],
        day_of_month: Iterable[int],
        month_of_year: Iterable[int],
    ) -> None:
        self._minutes = sorted(minute)
        self._hours = sorted(hour)
        self._weekdays = frozenset(day_of_week)
        self._days = sorted(day_of_month)
        self._months = sorted(month_of_year)

    @property
    def can_come(self) -> bool:
        """Whether there is such a day in any year; 30 February is none."""
        return (
            bool(self._minutes and self._hours and self._weekdays and self._days)
            and any(self._days[0] <= _LONGEST_MONTHS[month - 1] for month in self._months)
        )  # fmt: skip

    def starting(self, wall: datetime.datetime) -> Iterator[datetime.datetime]:
        """Yield the slots from a naive time on, in order; ends where no calendar goes on."""
        first_day = wall.date()
        for day in self._days_from(first_day):
            for hour in self._hours:
                if day == first_day and hour < wall.hour:
                    continue
                for minute in self._minutes:
                    slot = datetime.datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 - a wall clock
                    if slot >= wall:
                        yield slot

    def _days_from(self, first: datetime.date) -> Iterator[datetime.date]:
        for year in range(first.year, min(first.year + _YEARS_SEARCHED, datetime.MAXYEAR)):
            for month in self._months:
                if year == first.year and month < first.month:
                    continue
                length = monthrange(year, month)[1]
                start = first.day if (year, month) == (first.year, first.month) else 1
                for number in self._days[bisect_left(self._days, start) :]:
                    if number > length:
                        break
                    day = datetime.date(year, month, number)
                    if day.isoweekday() % 7 in self._weekdays:
                        yield day


def next_instant(slots: WallClockSlots, after: datetime.datetime, zone: datetime.tzinfo) -> datetime.datetime:
    """Return the first instant after an aware time at which a slot comes in a time zone, in UTC.

    UTC, because two times of one zone are compared and subtracted by what their clocks show.

    Raises:
        NeverDue: No slot ever comes.
    """
    if not slots.can_come:
        raise NeverDue("this crontab is never due: no month that it allows has a day of month that it allows")
    after = after.astimezone(_UTC)
    local = after.astimezone(zone)
    start = local.replace(tzinfo=None)
    if forward := _put_forward(after, zone):
        start -= forward  # slots of the hour that was skipped may still come
    best: datetime.datetime | None = None
    best_wall: datetime.datetime | None = None
    for slot in slots.starting(start.replace(second=0, microsecond=0)):
        if best_wall is not None and slot >= best_wall:
            break
        instant = _instant(slot, zone)
        if instant > after and (best is None or instant < best):
            best, best_wall = instant, instant.astimezone(zone).replace(tzinfo=None)
    if best is None:
        raise NeverDue("this crontab is not due again in the years that a calendar has")
    return best


def previous_instant(
    slots: WallClockSlots, after: datetime.datetime, until: datetime.datetime, zone: datetime.tzinfo
) -> datetime.datetime | None:
    """Return the last instant at which a slot comes after one aware time and not after another, in UTC."""
    after, until = after.astimezone(_UTC), until.astimezone(_UTC)
    span = until - after
    reach = _MINUTE
    while True:  # from its end in growing steps: the span may be years, and slots a minute apart
        start = until - min(reach, span)
        found: datetime.datetime | None = None
        moment = next_instant(slots, start, zone)
        while moment <= until:
            found, moment = moment, next_instant(slots, moment, zone)
        if found is not None or reach >= span:
            return found
        reach *= 8


def _put_forward(moment: datetime.datetime, zone: datetime.tzinfo) -> datetime.timedelta:
    """Return by how much clocks have been put forward during the day before."""
    before = (moment - _DAY).astimezone(zone).utcoffset()
    now = moment.astimezone(zone).utcoffset()
    assert before is not None
    assert now is not None
    return max(now - before, datetime.timedelta(0))


def _instant(wall: datetime.datetime, zone: datetime.tzinfo) -> datetime.datetime:
    # With fold 0 Python reads a time that comes twice as the first, and one that is skipped by the offset
    # that was valid before: as much later as the clock is put forward.
    return wall.replace(tzinfo=zone, fold=0).astimezone(_UTC)
