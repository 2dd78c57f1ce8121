"""Due at times given as in a crontab."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

from celeriac.errors import CrontabSyntaxError
from celeriac.schedules.base import BaseSchedule, SchedulingApp, schedstate
from celeriac.schedules.field import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH_OF_YEAR
from celeriac.schedules.wallclock import WallClockSlots, next_instant, previous_instant

__all__ = ["crontab"]

_UTC: Final = datetime.UTC

Spec = int | str | Iterable[int]


class crontab(BaseSchedule):  # noqa: N801, PLW1641 - Celery's name; unhashable, as it can be changed
    """Due at times given as in a crontab; mind the order of the positional arguments.

    All five have to allow a time; cron itself takes either of the two days. What happens where clocks are
    changed is the rule of `celeriac.schedules.wallclock`.

    Args:
        minute: 0 to 59: a number, several, or a text such as ``*/15``, ``0,30`` or ``10-20/2``.
        hour: 0 to 23, likewise.
        day_of_week: 0 (Sunday) to 6, or names: ``mon-fri``.
        day_of_month: 1 to 31.
        month_of_year: 1 to 12, or names: ``jan,jul``.
        nowfun: Returns the current time.
        app: The app whose time zone and clock count.
        tz: A time zone of its own, an object or an IANA name.

    Raises:
        TypeError: A field is neither number, numbers nor text.
        CrontabSyntaxError: A text cannot be read.
        ScheduleError: A number is out of range, or there is no such time zone.
    """

    def __init__(
        self,
        minute: Spec = "*",
        hour: Spec = "*",
        day_of_week: Spec = "*",
        day_of_month: Spec = "*",
        month_of_year: Spec = "*",
        *,
        nowfun: Callable[[], datetime.datetime] | None = None,
        app: SchedulingApp | None = None,
        tz: datetime.tzinfo | str | None = None,
    ) -> None:
        self._orig_minute = minute
        self._orig_hour = hour
        self._orig_day_of_week = day_of_week
        self._orig_day_of_month = day_of_month
        self._orig_month_of_year = month_of_year
        self.minute: set[int] = MINUTE.numbers(minute)
        self.hour: set[int] = HOUR.numbers(hour)
        self.day_of_week: set[int] = DAY_OF_WEEK.numbers(day_of_week)
        self.day_of_month: set[int] = DAY_OF_MONTH.numbers(day_of_month)
        self.month_of_year: set[int] = MONTH_OF_YEAR.numbers(month_of_year)
        super().__init__(nowfun=nowfun, app=app, tz=tz)

    @classmethod
    def from_string(cls, crontab: str, **options: Any) -> Self:  # Any: keyword arguments of the class
        """Return the schedule of a line as in a crontab: minute, hour, day of month, month, day of week.

        Args:
            crontab: The five fields, with blanks between.
            **options: ``nowfun``, ``app`` and ``tz``.

        Raises:
            CrontabSyntaxError: There are not five fields, or one cannot be read.
            ScheduleError: A number is out of range.
        """
        fields = crontab.split()
        if len(fields) != 5:
            raise CrontabSyntaxError(
                f"a crontab has five fields (minute, hour, day of month, month, day of week) "
                f"with blanks between; {crontab!r} has {len(fields)}"
            )
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year, **options)

    def next_run(self, after: datetime.datetime) -> datetime.datetime:
        """Return the first time after a given one at which it is due, in its time zone.

        Args:
            after: A naive time is UTC.

        Raises:
            NeverDue: No day is as it says.
        """
        return self._next(after).astimezone(self.tz)

    def last_slot(self, first: datetime.datetime, until: datetime.datetime) -> datetime.datetime:
        """Return the last of its slots up to a time, in UTC.

        Args:
            first: One of them, not after that time; aware.
            until: The time; aware.
        """
        return previous_instant(self._slots(), first, until, self.tz) or first.astimezone(_UTC)

    def remaining_estimate(self, last_run_at: datetime.datetime) -> datetime.timedelta:
        """Return how long it is until the next run; negative when that is overdue.

        Raises:
            NeverDue: No day is as it says.
        """
        return self._next(last_run_at) - self.now().astimezone(_UTC)

    def is_due(self, last_run_at: datetime.datetime) -> tuple[bool, float]:
        """Return whether it is due now, and after how many seconds to ask again.

        A run that was missed by more than the app's `beat_cron_starting_deadline` is not due any more.

        Raises:
            NeverDue: No day is as it says.
        """
        now = self.now().astimezone(_UTC)
        remaining_seconds = (self._next(last_run_at) - now).total_seconds()
        if remaining_seconds > 0:
            return schedstate(False, remaining_seconds)
        until_next_seconds = (self._next(now) - now).total_seconds()
        return schedstate(not self._is_too_late(last_run_at, now), until_next_seconds)

    def _is_too_late(self, last_run_at: datetime.datetime, now: datetime.datetime) -> bool:
        app = self.app
        deadline_seconds = None if app is None else app.conf.beat_cron_starting_deadline
        if deadline_seconds is None:
            return False
        latest = previous_instant(self._slots(), self.maybe_make_aware(last_run_at), now, self.tz)
        return latest is not None and (now - latest).total_seconds() > deadline_seconds

    def _next(self, after: datetime.datetime) -> datetime.datetime:
        return next_instant(self._slots(), self.maybe_make_aware(after), self.tz)

    def _slots(self) -> WallClockSlots:
        # Made anew, for a program may have changed one of the sets.
        return WallClockSlots(self.minute, self.hour, self.day_of_week, self.day_of_month, self.month_of_year)

    def __repr__(self) -> str:
        fields = (
            self._orig_minute,
            self._orig_hour,
            self._orig_day_of_month,
            self._orig_month_of_year,
            self._orig_day_of_week,
        )
        return f"<crontab: {' '.join(str(field) for field in fields)} (m/h/dM/MY/d)>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, crontab):
            return NotImplemented
        return self._allowed() == other._allowed() and super().__eq__(other)

    def _allowed(self) -> tuple[set[int], ...]:
        return self.minute, self.hour, self.day_of_week, self.day_of_month, self.month_of_year

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (
            self._orig_minute,
            self._orig_hour,
            self._orig_day_of_week,
            self._orig_day_of_month,
            self._orig_month_of_year,
        )
        return type(self), arguments, self._own_clock()
