"""Schedules in a form that can be written down and read back: what a store keeps of one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from celeriac.errors import ScheduleError
from celeriac.schedules.base import SchedulingApp
from celeriac.schedules.cron import crontab
from celeriac.schedules.interval import schedule
from celeriac.schedules.sun import solar

__all__ = ["Written", "read", "write"]


class Written(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A schedule; one of the first three says of which kind."""

    every_seconds: float | None = None
    crontab: str | None = None  # five fields, as `crontab.from_string` takes them
    sun: tuple[str, float, float] | None = None  # event, latitude, longitude
    relative: bool = False
    tz: str | None = None


def write(when: Any) -> Written:  # Any: a schedule, or what a program takes for one
    """Return a schedule as it is written.

    Raises:
        ScheduleError: It is of a class that has no such form.
    """
    zone = getattr(when, "_tz", None)
    tz = None if zone is None else str(zone)
    if isinstance(when, crontab):
        fields = (
            when._orig_minute,
            when._orig_hour,
            when._orig_day_of_month,
            when._orig_month_of_year,
            when._orig_day_of_week,
        )
        return Written(crontab=" ".join(map(_field, fields)), tz=tz)
    if isinstance(when, solar):
        return Written(sun=(when.event, when.lat, when.lon))
    if isinstance(when, schedule):
        return Written(every_seconds=when.run_every.total_seconds(), relative=when.relative, tz=tz)
    raise ScheduleError(
        f"a schedule of class {type(when).__name__} cannot be kept in a store: use seconds, a timedelta, "
        "crontab() or solar(), or leave the entry in the code"
    )


def read(written: Written, app: SchedulingApp | None = None) -> schedule | crontab | solar:
    """Return the schedule that was written.

    Args:
        written: As `write` returned it.
        app: The app whose time zone and clock count.

    Raises:
        ScheduleError: It says no time, or an unknown time zone.
    """
    if written.crontab is not None:
        return crontab.from_string(written.crontab, app=app, tz=written.tz)
    if written.sun is not None:
        return solar(*written.sun, app=app)
    if written.every_seconds is None:
        raise ScheduleError(
            "a schedule says every how many seconds, or at what times of a crontab, or by the sun"
        )
    return schedule(written.every_seconds, written.relative, app=app, tz=written.tz)


def _field(given: Any) -> str:  # Any: number, text or numbers
    if isinstance(given, Iterable) and not isinstance(given, str):
        return ",".join(map(str, sorted(given)))
    return "".join(str(given).split())
