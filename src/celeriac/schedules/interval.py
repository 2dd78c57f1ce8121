"""Due every so often."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, Final

from celeriac.errors import ScheduleError
from celeriac.schedules.base import BaseSchedule, SchedulingApp, schedstate

__all__ = ["humanize_seconds", "maybe_schedule", "round_to_resolution", "schedule"]

_UTC: Final = datetime.UTC
_DAY: Final = datetime.timedelta(days=1)
_UNITS: Final = (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0))


class schedule(BaseSchedule):  # noqa: N801, PLW1641 - Celery's name; unhashable, as it can be changed
    """Due every so often; the seconds are real ones, also where clocks are changed.

    Args:
        run_every: Seconds or timedelta between two runs.
        relative: Whether the next run is rounded down to whole days, hours or minutes, as the interval has.
        nowfun: Returns the current time.
        app: The app whose time zone and clock count.
        tz: A time zone of its own, an object or an IANA name; only a relative interval has use for it.

    Raises:
        ScheduleError: The interval is none.
    """

    def __init__(
        self,
        run_every: float | datetime.timedelta | None = None,
        relative: bool = False,
        nowfun: Callable[[], datetime.datetime] | None = None,
        app: SchedulingApp | None = None,
        tz: datetime.tzinfo | str | None = None,
    ) -> None:
        self.run_every: datetime.timedelta = _interval(run_every)
        self.relative = relative
        super().__init__(nowfun=nowfun, app=app, tz=tz)

    @property
    def seconds(self) -> float:
        """The interval in seconds, not below 0."""
        return max(self.run_every.total_seconds(), 0)

    @property
    def human_seconds(self) -> str:
        """The interval for people: ``30.00 seconds``; ``now`` for less than one."""
        return humanize_seconds(self.seconds) or "now"

    def next_run(self, after: datetime.datetime) -> datetime.datetime:
        """Return when it is due after a run, in UTC.

        Args:
            after: That run; a naive time is UTC.
        """
        return self._later(self.maybe_make_aware(after).astimezone(_UTC), 1)

    def _later(self, after: datetime.datetime, times: int) -> datetime.datetime:
        """Return when it is due after a run, and so many intervals; times of UTC."""
        if not self.relative:
            return after + times * self.run_every
        zone = self.tz
        if self.run_every >= _DAY:
            # Days of the calendar: in the night in which clocks are put back one has 25 hours, and its
            # midnight would be the next one again.
            wall = after.astimezone(zone).replace(tzinfo=None) + times * self.run_every
            return round_to_resolution(wall, self.run_every).replace(tzinfo=zone).astimezone(_UTC)
        exact = after + times * self.run_every
        rounded = round_to_resolution(exact.astimezone(zone), self.run_every).replace(microsecond=0)
        found = rounded.astimezone(_UTC)
        # Where clocks are put back by half an hour, the hour that has begun may be that of the last run.
        return found if found > after or times < 1 else exact

    def last_slot(self, first: datetime.datetime, until: datetime.datetime) -> datetime.datetime:
        """Return the last of its slots up to a time, in UTC.

        Args:
            first: One of them, not after that time; aware.
            until: The time; aware.
        """
        first, until = first.astimezone(_UTC), until.astimezone(_UTC)
        if self.seconds <= 0:
            return until
        # A relative one is rounded at each step: the last steps are made one by one.
        steps = int((until - first) / self.run_every) - (2 if self.relative else 0)
        found = self._later(first, steps) if steps > 0 else first
        if self.relative:
            while (following := self.next_run(found)) <= until and following > found:
                found = following
        return found

    def remaining_estimate(self, last_run_at: datetime.datetime) -> datetime.timedelta:
        """Return how long it is until the next run; negative when that is overdue."""
        return self.next_run(last_run_at) - self.now().astimezone(_UTC)

    def is_due(self, last_run_at: datetime.datetime) -> tuple[bool, float]:
        """Return whether it is due now, and after how many seconds to ask again."""
        remaining_seconds = self.remaining_estimate(last_run_at).total_seconds()
        if remaining_seconds <= 0:
            return schedstate(True, self.seconds)
        return schedstate(False, remaining_seconds)

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>"

    def __eq__(self, other: object) -> bool:
        return self.run_every == (other.run_every if isinstance(other, schedule) else other)

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.run_every, self.relative, self.nowfun)
        return (type(self), arguments) if self._tz is None else (type(self), arguments, {"_tz": self._tz})


def maybe_schedule(
    s: Any,  # Any: number, timedelta, schedule, or what else a program takes for one
    relative: bool = False,
    app: SchedulingApp | None = None,
) -> Any:  # Any: a schedule, or `s`
    """Return a schedule for a number of seconds or a timedelta; a schedule as it is, with its app set.

    Args:
        s: Seconds, timedelta or schedule.
        relative: Whether the interval is a relative one.
        app: The app whose time zone and clock count.
    """
    if isinstance(s, (int, float, datetime.timedelta)):
        return schedule(s, relative, app=app)
    if s is not None:
        s.app = app
    return s


def round_to_resolution(moment: datetime.datetime, interval: datetime.timedelta) -> datetime.datetime:
    """Return a time rounded down to whole days, hours or minutes: the largest that the interval has."""
    seconds = interval.total_seconds()
    if seconds >= 86400:
        return moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if seconds >= 3600:
        return moment.replace(minute=0, second=0, microsecond=0)
    if seconds >= 60:
        return moment.replace(second=0, microsecond=0)
    return moment


def humanize_seconds(seconds: float, *, fractions: bool = False) -> str:
    """Return seconds in the largest unit that they fill: ``1.50 hours``; nothing for less than a second.

    Args:
        seconds: The seconds.
        fractions: Whether a part of a second counts.
    """
    for unit, length in _UNITS:
        if seconds >= length:
            count = seconds / length
            return f"{count:.2f} {unit if count == 1 else unit + 's'}"
    return f"{seconds:.2f} seconds" if fractions and seconds >= 0.01 else ""


def _interval(run_every: Any) -> datetime.timedelta:  # Any: what a program gave
    if isinstance(run_every, datetime.timedelta):
        return run_every
    if isinstance(run_every, (int, float)):
        try:
            return datetime.timedelta(seconds=run_every)
        except (OverflowError, ValueError) as exc:
            raise ScheduleError(f"an interval of {run_every!r} seconds cannot be counted") from exc
    raise ScheduleError(f"an interval is a number of seconds or a timedelta, not {run_every!r}")
