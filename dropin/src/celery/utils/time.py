"""Dates, time zones, intervals and rates, for programs that count with them as Celery does."""

from __future__ import annotations

import calendar
import datetime
import random
import time as _time
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final
from zoneinfo import ZoneInfo

from celeriac.schedules.field import MONTHS, WEEKDAYS
from celeriac.schedules.interval import humanize_seconds as _humanize_seconds
from celeriac.schedules.interval import round_to_resolution

__all__ = (
    "LocalTimezone",
    "adjust_timestamp",
    "delta_resolution",
    "ffwd",
    "get_exponential_backoff_interval",
    "humanize_seconds",
    "is_naive",
    "localize",
    "make_aware",
    "maybe_iso8601",
    "maybe_make_aware",
    "maybe_timedelta",
    "rate",
    "remaining",
    "timezone",
    "to_utc",
    "utcoffset",
    "weekday",
    "yearmonth",
)

DAYNAMES: Final = tuple(WEEKDAYS)
MONTHNAMES: Final = tuple(MONTHS)
YEARMONTHS: Final = MONTHS
ZERO: Final = datetime.timedelta(0)
_SIXTIETHS: Final = {"s": 0, "m": 1, "h": 2}


class LocalTimezone(datetime.tzinfo):
    """The time zone of this machine, as the C library knows it."""

    def utcoffset(self, dt: datetime.datetime | None) -> datetime.timedelta:
        """Return how far local time is from UTC."""
        return self._at(dt).utcoffset() or ZERO

    def dst(self, dt: datetime.datetime | None) -> datetime.timedelta:
        """Return by how much clocks are put forward for the summer."""
        at = _time.localtime(self._at(dt).timestamp())
        return datetime.timedelta(seconds=_time.timezone - _time.altzone) if at.tm_isdst > 0 else ZERO

    def tzname(self, dt: datetime.datetime | None) -> str:
        """Return the short name of the zone at that time."""
        return self._at(dt).tzname() or ""

    def fromutc(self, dt: datetime.datetime) -> datetime.datetime:
        """Return the local time of a time in UTC."""
        local = dt.replace(tzinfo=datetime.UTC).astimezone()
        return local.replace(tzinfo=self)

    @staticmethod
    def _at(dt: datetime.datetime | None) -> datetime.datetime:
        return (datetime.datetime.now() if dt is None else dt).replace(tzinfo=None).astimezone()  # noqa: DTZ005 - made aware here

    def __repr__(self) -> str:
        return f"<LocalTimezone: UTC{int(self.utcoffset(None).total_seconds() / 3600):+03d}>"

    def __reduce__(self) -> tuple[type[LocalTimezone], tuple[()]]:
        return type(self), ()


class _Zone:
    """Time zones by name, and times shown in them."""

    @cached_property
    def utc(self) -> datetime.tzinfo:
        """UTC."""
        return ZoneInfo("UTC")

    @cached_property
    def local(self) -> datetime.tzinfo:
        """The time zone of this machine."""
        return LocalTimezone()

    def tz_or_local(self, tzinfo: datetime.tzinfo | str | None = None) -> datetime.tzinfo:
        """Return a time zone given itself or by name; this machine's for None."""
        return self.local if tzinfo is None else self.get_timezone(tzinfo)

    def to_local(
        self,
        dt: datetime.datetime,
        local: datetime.tzinfo | str | None = None,
        orig: datetime.tzinfo | str | None = None,
    ) -> datetime.datetime:
        """Return a naive time of one zone (UTC) in another (this machine's); an aware one as it is."""
        if is_naive(dt):
            dt = make_aware(dt, self.get_timezone(orig or self.utc))
            return dt.astimezone(self.tz_or_local(local))
        return dt

    def to_system(self, dt: datetime.datetime) -> datetime.datetime:
        """Return an aware time in this machine's time zone."""
        return dt.astimezone()

    def to_local_fallback(self, dt: datetime.datetime) -> datetime.datetime:
        """Return a naive time of this machine made aware; an aware one as it is."""
        return make_aware(dt, self.local) if is_naive(dt) else dt

    def get_timezone(self, zone: str | datetime.tzinfo) -> datetime.tzinfo:
        """Return a time zone given itself or by its IANA name.

        Raises:
            zoneinfo.ZoneInfoNotFoundError: There is none of that name.
        """
        return ZoneInfo(zone) if isinstance(zone, str) else zone


timezone: Final = _Zone()


# --- aware and naive times ---------------------------------------------------------------------------


def is_naive(dt: datetime.datetime) -> bool:
    """Return whether a time does not say its time zone."""
    return dt.tzinfo is None or dt.utcoffset() is None


def make_aware(dt: datetime.datetime, tz: datetime.tzinfo) -> datetime.datetime:
    """Return a naive time as one of a zone, and an aware time as that zone shows it.

    Of a time that comes twice, where clocks are put back, it is the first.
    """
    return dt.replace(tzinfo=tz, fold=0) if is_naive(dt) else dt.astimezone(tz)


def localize(dt: datetime.datetime, tz: datetime.tzinfo) -> datetime.datetime:
    """Return an aware time as a time zone shows it."""
    return make_aware(dt, tz)


def to_utc(dt: datetime.datetime) -> datetime.datetime:
    """Return a time in UTC; a naive one is UTC already."""
    return make_aware(dt, timezone.utc)


def maybe_make_aware(
    dt: datetime.datetime, tz: datetime.tzinfo | str | None = None, naive_as_utc: bool = True
) -> datetime.datetime:
    """Return a naive time made aware; an aware one as it is.

    Args:
        dt: The time.
        tz: The zone of the answer; UTC without.
        naive_as_utc: Whether the naive time is one of UTC, and not of ``tz``.
    """
    if not is_naive(dt):
        return dt
    zone = timezone.utc if tz is None else timezone.get_timezone(tz)
    return to_utc(dt).astimezone(zone) if naive_as_utc else make_aware(dt, zone)


def maybe_iso8601(dt: datetime.datetime | str | None) -> datetime.datetime | None:
    """Return the time of a text in ISO 8601; a time as it is, None for nothing.

    Raises:
        ValueError: The text is no such time.
    """
    if not dt:
        return None
    return dt if isinstance(dt, datetime.datetime) else datetime.datetime.fromisoformat(dt)


def utcoffset(time: Any = _time, localtime: Callable[..., Any] = _time.localtime) -> float:  # Any: the module
    """Return how many hours local time is behind UTC."""
    seconds = time.altzone if localtime().tm_isdst else time.timezone
    return int(seconds) // 3600


def adjust_timestamp(ts: float, offset: int, here: Callable[..., float] = utcoffset) -> float:
    """Return a timestamp of a machine whose `utcoffset` is ``offset`` as one of this machine."""
    return ts - (offset - here()) * 3600


# --- intervals -----------------------------------------------------------------------------------------


def maybe_timedelta(delta: Any) -> Any:  # Any: seconds or anything else
    """Return a timedelta for a number of seconds; anything else as it is."""
    return datetime.timedelta(seconds=delta) if isinstance(delta, (int, float)) else delta


def delta_resolution(dt: datetime.datetime, delta: datetime.timedelta) -> datetime.datetime:
    """Return a time rounded down to whole days, hours or minutes: the largest that the interval has."""
    return round_to_resolution(dt, delta)


def remaining(
    start: datetime.datetime,
    ends_in: datetime.timedelta | ffwd,
    now: datetime.datetime | None = None,
    relative: bool = False,
) -> datetime.timedelta:
    """Return how long it is until an interval ends; negative when it has ended.

    Args:
        start: When it began.
        ends_in: How long it is.
        now: The current time.
        relative: Whether the end is rounded down to the interval's resolution.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    end: datetime.datetime = start + ends_in  # by what clocks show: an `ffwd` means these
    if relative and isinstance(ends_in, datetime.timedelta):
        end = delta_resolution(end, ends_in).replace(microsecond=0)
    return to_utc(end) - to_utc(now.replace(tzinfo=start.tzinfo) if is_naive(now) else now)


class ffwd:  # noqa: N801, PLW1641 - Celery's name; unhashable, as it can be changed
    """What is added to a time to get the next one that has given parts: ``moment + ffwd(hour=3, minute=0)``.

    Args:
        year: The year to set.
        month: The month to set; a day that it has not becomes its last one.
        weeks: Weeks to add.
        weekday: The weekday to go on to; 0 is Monday.
        day: The day of the month to set.
        hour: The hour to set.
        minute: The minute to set.
        second: The second to set.
        microsecond: The microsecond to set.
        **kwargs: Taken, and without a meaning.
    """

    _set = ("year", "month", "day", "hour", "minute", "second", "microsecond")

    def __init__(
        self,
        year: int | None = None,
        month: int | None = None,
        weeks: int = 0,
        weekday: int | None = None,
        day: int | None = None,
        hour: int | None = None,
        minute: int | None = None,
        second: int | None = None,
        microsecond: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.year = year
        self.month = month
        self.weeks = weeks
        self.weekday = weekday
        self.day = day
        self.hour = hour
        self.minute = minute
        self.second = second
        self.microsecond = microsecond

    def _parts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self._set if getattr(self, name) is not None}

    def __radd__(self, other: Any) -> datetime.datetime:  # Any: what Python adds this to
        if not isinstance(other, datetime.date):
            return NotImplemented
        replace: Any = other.replace  # Any: a date has no hours to set
        parts = self._parts()
        year, month = self.year or other.year, self.month or other.month
        parts["day"] = min(calendar.monthrange(year, month)[1], self.day or other.day)
        moved: datetime.datetime = replace(**parts) + datetime.timedelta(weeks=self.weeks)
        if self.weekday is not None:
            moved += datetime.timedelta(days=(self.weekday - moved.weekday()) % 7)
        return moved

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, ffwd) else NotImplemented

    def __repr__(self) -> str:
        names = (*self._set, "weeks", "weekday")
        shown = [f"{name}={getattr(self, name)!r}" for name in names if getattr(self, name) is not None]
        return f"ffwd({', '.join(shown)})"


# --- words -----------------------------------------------------------------------------------------------


def rate(r: Any) -> float:  # Any: a number or a text
    """Return how many times a second a rate limit allows: ``10/m`` is a sixth; 0 for none.

    Raises:
        ValueError: It is no number.
        KeyError: The unit is none of ``s``, ``m`` and ``h``.
    """
    if not r:
        return 0
    if not isinstance(r, str):
        return r  # type: ignore[no-any-return]  # a number
    count, _, unit = r.partition("/")
    a_second = float(count)
    for _ in range(_SIXTIETHS[unit or "s"]):
        a_second /= 60
    return a_second


def weekday(name: str) -> int:
    """Return the number of a weekday by its first three letters, 0 for Sunday.

    Raises:
        KeyError: There is none.
    """
    return _numbered(name, WEEKDAYS)


def yearmonth(name: str) -> int:
    """Return the number of a month by its first three letters.

    Raises:
        KeyError: There is none.
    """
    return _numbered(name, MONTHS)


def _numbered(name: str, numbers: dict[str, int]) -> int:
    abbreviation = name[:3].lower()
    if abbreviation not in numbers:
        raise KeyError(name)
    return numbers[abbreviation]


def humanize_seconds(
    secs: float, prefix: str = "", sep: str = "", now: str = "now", microseconds: bool = False
) -> str:
    """Return seconds in the largest unit that they fill: ``1.50 hours``.

    Args:
        secs: The seconds.
        prefix: What to put before.
        sep: What to put between the prefix and the number.
        now: What to say for less than a second.
        microseconds: Whether parts of a second count.
    """
    text = _humanize_seconds(secs, fractions=microseconds)
    return f"{prefix}{sep}{text}" if text else now


def get_exponential_backoff_interval(
    factor: int, retries: int, maximum: int, full_jitter: bool = False
) -> int:
    """Return the seconds to wait before a retry.

    Args:
        factor: The seconds before the first.
        retries: How many there have been; each doubles the wait.
        maximum: The longest wait.
        full_jitter: Whether to wait a random part of it.
    """
    seconds = min(maximum, factor * (1 << retries))
    if full_jitter:
        seconds = random.randrange(seconds + 1)  # noqa: S311 - spreads load, keeps no secret
    return max(0, seconds)
