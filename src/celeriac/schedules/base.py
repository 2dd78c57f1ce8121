"""What all schedules have: the clock and the time zone that they go by."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from celeriac.errors import ScheduleError

__all__ = ["BaseSchedule", "SchedulingApp", "schedstate", "zone_named"]

_UTC: Final = datetime.UTC


class schedstate(NamedTuple):  # noqa: N801 - Celery's name
    """Whether an entry is due now, and after how many seconds to ask again."""

    is_due: bool
    next: float


class SchedulingApp(Protocol):
    """What a schedule wants to know of an app."""

    @property
    def conf(self) -> Any:  # Any: settings have as many types as names
        """The app's settings."""
        ...

    @property
    def timezone(self) -> datetime.tzinfo:
        """The time zone in which its crontabs are read."""
        ...

    def now(self) -> datetime.datetime:
        """Return the current time, aware."""
        ...


class BaseSchedule:  # noqa: PLW1641 - unhashable, as it can be changed
    """Root of the schedules.

    Args:
        nowfun: Returns the current time; the app is asked without.
        app: The app whose time zone and clock count; UTC without.
        tz: A time zone of its own, an object or an IANA name.

    Raises:
        ScheduleError: There is no such time zone.
    """

    # On the class, so that subclasses may set a zone before they call `__init__`, and old pickles have one.
    _app: SchedulingApp | None = None
    _tz: datetime.tzinfo | None = None
    nowfun: Callable[[], datetime.datetime] | None = None

    def __init__(
        self,
        nowfun: Callable[[], datetime.datetime] | None = None,
        app: SchedulingApp | None = None,
        tz: datetime.tzinfo | str | None = None,
    ) -> None:
        self.nowfun = nowfun
        self._app = app
        if tz is not None:
            self.tz = tz

    @property
    def app(self) -> Any:  # Any: a SchedulingApp or None; the drop-in's is the current app
        """The app whose time zone and clock count."""
        return self._app

    @app.setter
    def app(self, app: Any) -> None:  # Any: as above
        self._app = app

    @property
    def tz(self) -> datetime.tzinfo:
        """The time zone that it is read in: its own, else the app's, else UTC."""
        if self._tz is not None:
            return self._tz
        app = self.app
        return _UTC if app is None else app.timezone

    @tz.setter
    def tz(self, tz: datetime.tzinfo | str | None) -> None:
        self._tz = zone_named(tz) if isinstance(tz, str) else tz

    @property
    def utc_enabled(self) -> bool:
        """Whether the app's messages bear times in UTC."""
        app = self.app
        return True if app is None else bool(app.conf.enable_utc)

    def now(self) -> datetime.datetime:
        """Return the current time, aware."""
        if self.nowfun is not None:
            return self.maybe_make_aware(self.nowfun())
        app = self.app
        return datetime.datetime.now(_UTC) if app is None else app.now()

    def maybe_make_aware(self, dt: datetime.datetime, naive_as_utc: bool = True) -> datetime.datetime:
        """Return an aware time; a naive one is shown in this schedule's time zone.

        Args:
            dt: The time.
            naive_as_utc: Whether a naive one is of UTC; of this schedule's time zone otherwise.
        """
        if dt.tzinfo is not None:
            return dt
        return dt.replace(tzinfo=_UTC).astimezone(self.tz) if naive_as_utc else dt.replace(tzinfo=self.tz)

    def to_local(self, dt: datetime.datetime) -> datetime.datetime:
        """Return a time as the clocks of this schedule's time zone show it."""
        return self.maybe_make_aware(dt).astimezone(self.tz)

    def remaining_estimate(self, last_run_at: datetime.datetime) -> datetime.timedelta:
        """Return how long it is until the next run; negative when that is overdue.

        Args:
            last_run_at: When it ran last; a naive time is UTC.
        """
        raise NotImplementedError(f"{type(self).__name__} has no remaining_estimate()")

    def is_due(self, last_run_at: datetime.datetime) -> tuple[bool, float]:
        """Return whether it is due now, and after how many seconds to ask again.

        Args:
            last_run_at: When it ran last; a naive time is UTC.
        """
        raise NotImplementedError(f"{type(self).__name__} has no is_due()")

    def _own_clock(self) -> dict[str, Any]:
        """Return what a pickle keeps beside the arguments."""
        kept: dict[str, Any] = {}
        if self.nowfun is not None:
            kept["nowfun"] = self.nowfun
        if self._tz is not None:
            kept["_tz"] = self._tz
        return kept

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BaseSchedule):
            return NotImplemented
        return self.nowfun == other.nowfun and _zone_name(self._tz) == _zone_name(other._tz)


def zone_named(name: str) -> datetime.tzinfo:
    """Return the time zone of an IANA name.

    Raises:
        ScheduleError: There is none.
    """
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as exc:  # not found; no such form of name
        raise ScheduleError(
            f"there is no time zone {name!r}: give an IANA name such as 'Europe/Berlin' or 'UTC' "
            "(where the system has no zones, `pip install tzdata` brings them)"
        ) from exc


def _zone_name(zone: datetime.tzinfo | None) -> str | None:
    return None if zone is None else str(zone)
