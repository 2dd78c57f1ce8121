"""When periodic tasks are due, as settings describe it.

The classes keep what they were given; running schedules is the scheduler's business.
"""

from __future__ import annotations

import datetime
from typing import Any

__all__ = ("BaseSchedule", "ParseException", "crontab", "maybe_schedule", "schedule", "solar")


class ParseException(Exception):
    """Raised for a crontab expression that cannot be read."""


class BaseSchedule:
    """Root of the schedules."""


class schedule(BaseSchedule):  # noqa: N801 - Celery's name
    """Due every so often.

    Args:
        run_every: Seconds or timedelta between two runs.
        relative: Whether times are rounded to the resolution of the interval.
        nowfun: Returns the current time.
        app: The app whose time zone counts.
    """

    def __init__(
        self, run_every: Any = None, relative: bool = False, nowfun: Any = None, app: Any = None
    ) -> None:
        is_span = isinstance(run_every, datetime.timedelta)
        self.run_every: datetime.timedelta = (
            run_every if is_span else datetime.timedelta(seconds=run_every or 0)
        )
        self.relative = relative
        self.nowfun = nowfun
        self.app = app

    @property
    def seconds(self) -> float:
        """The interval in seconds."""
        return max(self.run_every.total_seconds(), 0)

    def __repr__(self) -> str:
        return f"<freq: {self.seconds:.2f} seconds>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, schedule) and self.run_every == other.run_every

    def __hash__(self) -> int:
        return hash(self.run_every)


class crontab(BaseSchedule):  # noqa: N801 - Celery's name
    """Due at times given as in a crontab; mind the order of the positional arguments.

    Args:
        minute: Such as ``*/15``, ``0,30`` or a number.
        hour: Likewise.
        day_of_week: Numbers (0 is Sunday) or names.
        day_of_month: Numbers.
        month_of_year: Numbers or names.
    """

    def __init__(
        self,
        minute: Any = "*",
        hour: Any = "*",
        day_of_week: Any = "*",
        day_of_month: Any = "*",
        month_of_year: Any = "*",
        **kwargs: Any,
    ) -> None:
        self._orig_minute = minute
        self._orig_hour = hour
        self._orig_day_of_week = day_of_week
        self._orig_day_of_month = day_of_month
        self._orig_month_of_year = month_of_year
        self._orig_kwargs = kwargs

    def _fields(self) -> tuple[str, ...]:
        return tuple(
            str(field)
            for field in (
                self._orig_minute,
                self._orig_hour,
                self._orig_day_of_month,
                self._orig_month_of_year,
                self._orig_day_of_week,
            )
        )

    def __repr__(self) -> str:
        return f"<crontab: {' '.join(self._fields())} (m/h/dM/MY/d)>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, crontab) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())


class solar(BaseSchedule):  # noqa: N801 - Celery's name
    """Due at an event of the sun.

    Args:
        event: Such as ``sunrise``.
        lat: Latitude of the observer, in degrees.
        lon: Longitude of the observer, in degrees.
    """

    def __init__(self, event: str, lat: float, lon: float, **kwargs: Any) -> None:
        self.event = event
        self.lat = lat
        self.lon = lon
        self._orig_kwargs = kwargs

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, solar) and (self.event, self.lat, self.lon) == (
            other.event,
            other.lat,
            other.lon,
        )

    def __hash__(self) -> int:
        return hash((self.event, self.lat, self.lon))


def maybe_schedule(s: Any, relative: bool = False, app: Any = None) -> Any:
    """Return a schedule for a number of seconds or a timedelta; anything else as it is."""
    if isinstance(s, (int, float, datetime.timedelta)):
        return schedule(s, relative, app=app)
    if hasattr(s, "app"):
        s.app = app
    return s
