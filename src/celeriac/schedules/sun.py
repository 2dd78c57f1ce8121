"""Due by the sun, at a place on Earth."""

from __future__ import annotations

import datetime
import importlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from celeriac.errors import ConfigError, NeverDue, ScheduleError
from celeriac.schedules.base import BaseSchedule, SchedulingApp, schedstate

__all__ = ["EVENTS", "solar"]


class _Event(NamedTuple):
    search: str  # ephem's name of the search
    horizon: str  # where the sun is then, in degrees and arc minutes
    use_center: bool  # whether its centre is meant, or its upper edge


# Twilight by its definition, the sun's centre 6, 12 or 18 degrees below the horizon; rising and setting with
# the customary 34 arc minutes of refraction.
EVENTS: Final = {
    "dawn_astronomical": _Event("next_rising", "-18", True),
    "dawn_nautical": _Event("next_rising", "-12", True),
    "dawn_civil": _Event("next_rising", "-6", True),
    "sunrise": _Event("next_rising", "-0:34", False),
    "solar_noon": _Event("next_transit", "0", False),
    "sunset": _Event("next_setting", "-0:34", False),
    "dusk_civil": _Event("next_setting", "-6", True),
    "dusk_nautical": _Event("next_setting", "-12", True),
    "dusk_astronomical": _Event("next_setting", "-18", True),
}
_DAYS_SEARCHED: Final = 400  # the longest night and the longest day last half a year
_UTC: Final = datetime.UTC
_NEXT_EVENT: Final = datetime.timedelta(minutes=1)  # a search that begins at an event may find it again


class solar(BaseSchedule):  # noqa: N801, PLW1641 - Celery's name; unhashable, as it can be changed
    """Due at an event of the sun; on days without it (a polar night) it waits for the next day that has it.

    Args:
        event: One of `EVENTS`.
        lat: Latitude of the observer in degrees, north positive.
        lon: Longitude of the observer in degrees, east positive.
        nowfun: Returns the current time.
        app: The app whose time zone and clock count.

    Raises:
        ScheduleError: No such event or place.
        ConfigError: The package ``ephem`` is missing.
    """

    def __init__(
        self,
        event: str,
        lat: float,
        lon: float,
        *,
        nowfun: Callable[[], datetime.datetime] | None = None,
        app: SchedulingApp | None = None,
    ) -> None:
        if event not in EVENTS:
            raise ScheduleError(
                f"event {event!r} is none of the sun's: it is one of {', '.join(sorted(EVENTS))}"
            )
        if not -90 <= lat <= 90:
            raise ScheduleError(f"latitude {lat} is no place on Earth: it is -90 to 90")
        if not -180 <= lon <= 180:
            raise ScheduleError(f"longitude {lon} is no place on Earth: it is -180 to 180")
        self.event = event
        self.lat = lat
        self.lon = lon
        self._ephem = _import_ephem()
        super().__init__(nowfun=nowfun, app=app)

    def next_run(self, after: datetime.datetime) -> datetime.datetime:
        """Return the first time after a given one at which the event is, in UTC.

        Raises:
            NeverDue: It is not within a year, at this place.
        """
        ephem = self._ephem
        event = EVENTS[self.event]
        observer = ephem.Observer()
        observer.lat, observer.lon = str(self.lat), str(self.lon)
        observer.elevation = observer.pressure = 0
        observer.horizon = event.horizon
        moment = self.maybe_make_aware(after).astimezone(_UTC).replace(tzinfo=None)
        search = getattr(observer, event.search)
        options = {} if event.search == "next_transit" else {"use_center": event.use_center}
        for day in range(_DAYS_SEARCHED):
            try:
                found: datetime.datetime = search(
                    ephem.Sun(), start=ephem.Date(moment + datetime.timedelta(days=day)), **options
                ).datetime()
            except ephem.CircumpolarError:
                continue
            return found.replace(tzinfo=_UTC)
        raise NeverDue(f"{self!r} is never due: there is no such event at that place within a year")

    def last_slot(self, first: datetime.datetime, until: datetime.datetime) -> datetime.datetime:
        """Return the last of its events up to a time, in UTC.

        Args:
            first: One of them, not after that time; aware.
            until: The time; aware.
        """
        found = first.astimezone(_UTC)
        while (following := self.next_run(found + _NEXT_EVENT)) <= until:
            found = following
        return found

    def remaining_estimate(self, last_run_at: datetime.datetime) -> datetime.timedelta:
        """Return how long it is until the next run; negative when that is overdue.

        Raises:
            NeverDue: The event is not within a year, at this place.
        """
        return self.next_run(last_run_at) - self.now().astimezone(_UTC)

    def is_due(self, last_run_at: datetime.datetime) -> tuple[bool, float]:
        """Return whether it is due now, and after how many seconds to ask again.

        Raises:
            NeverDue: The event is not within a year, at this place.
        """
        remaining_seconds = self.remaining_estimate(last_run_at).total_seconds()
        if remaining_seconds > 0:
            return schedstate(False, remaining_seconds)
        return schedstate(True, max(self.remaining_estimate(self.now()).total_seconds(), 0))

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, solar):
            return NotImplemented
        return (self.event, self.lat, self.lon) == (other.event, other.lat, other.lon)

    def __reduce__(self) -> tuple[Any, ...]:
        kept = self._own_clock()
        arguments = (self.event, self.lat, self.lon)
        return (type(self), arguments, kept) if kept else (type(self), arguments)


def _import_ephem() -> Any:  # Any: a module without types
    try:
        return importlib.import_module("ephem")
    except ImportError as exc:
        raise ConfigError(
            "schedules by the sun need the package ephem, which is missing: pip install 'celeriac[solar]'"
        ) from exc
