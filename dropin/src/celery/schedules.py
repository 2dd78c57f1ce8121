"""When periodic tasks are due: Celeriac's schedules, which ask the current app where none is named."""

from __future__ import annotations

import datetime
from typing import Any

from celeriac import schedules as core
from celeriac.errors import CrontabSyntaxError as ParseException
from celeriac.schedules import CronField, schedstate
from celery._state import current_app, get_current_app
from celery.utils.time import ffwd

__all__ = (
    "BaseSchedule",
    "ParseException",
    "cronfield",
    "crontab",
    "crontab_parser",
    "current_app",
    "maybe_schedule",
    "schedstate",
    "schedule",
    "solar",
)


class BaseSchedule(core.BaseSchedule):
    """Root of the schedules."""

    @property
    def app(self) -> Any:  # Any: a Celeriac
        """The app whose time zone and clock count; the current app when none was given."""
        return self._app or get_current_app()

    @app.setter
    def app(self, app: Any) -> None:  # Any: a Celeriac, or None
        self._app = app


class schedule(BaseSchedule, core.schedule):  # noqa: N801 - Celery's name
    __doc__ = core.schedule.__doc__


class crontab(BaseSchedule, core.crontab):  # noqa: N801 - Celery's name
    __doc__ = core.crontab.__doc__

    def remaining_delta(
        self, last_run_at: datetime.datetime, tz: datetime.tzinfo | None = None, ffwd: Any = ffwd
    ) -> tuple[datetime.datetime, Any, datetime.datetime]:  # Any: an `ffwd`
        """Return the last run, what to add to it for the next run, and the current time.

        Args:
            last_run_at: When it ran last; a naive time is UTC.
            tz: The time zone that counts instead of the schedule's.
            ffwd: Makes what is added.
        """
        zone = tz or self.tz
        last = self.maybe_make_aware(last_run_at).astimezone(zone)
        due = self._next_in(last, zone)
        delta = ffwd(
            year=due.year,
            month=due.month,
            day=due.day,
            hour=due.hour,
            minute=due.minute,
            second=0,
            microsecond=0,
        )
        return last, delta, self.now().astimezone(zone)

    def _next_in(self, last: datetime.datetime, zone: datetime.tzinfo) -> datetime.datetime:
        own = self._tz
        self._tz = zone
        try:
            return self.next_run(last)
        finally:
            self._tz = own


class solar(BaseSchedule, core.solar):  # noqa: N801 - Celery's name
    __doc__ = core.solar.__doc__


class crontab_parser:  # noqa: N801 - Celery's name
    """Reads one field of a crontab.

    Args:
        max_: How many numbers it has.
        min_: The lowest of them.
    """

    ParseException = ParseException

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.max_ = max_
        self.min_ = min_

    def parse(self, spec: str) -> set[int]:
        """Return the numbers that a text allows.

        Raises:
            ParseException: It cannot be read.
            ValueError: A number is out of range.
        """
        return CronField("a field", self.min_, self.max_ + self.min_ - 1).parse(spec)


def cronfield(s: Any) -> Any:  # Any: a field as a program or form has it
    """Return a field of a crontab: ``*`` for None."""
    return "*" if s is None else s


def maybe_schedule(
    s: Any,  # Any: number, timedelta, schedule, or what else a program takes for one
    relative: bool = False,
    app: Any = None,  # Any: a Celeriac
) -> Any:  # Any: a schedule, or `s`
    """Return a schedule for a number of seconds or a timedelta; a schedule as it is, with its app set."""
    if isinstance(s, (int, float, datetime.timedelta)):
        return schedule(s, relative, app=app)
    if s is not None:
        s.app = app
    return s
