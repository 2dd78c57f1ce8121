"""Which slots a year has, and what has to become of them: the rules, spelled out with none of our code."""

from __future__ import annotations

import bisect
import datetime
import zoneinfo
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import ephem

from celeriac.schedules import MissedPolicy, crontab, schedule, solar

START: Final = datetime.datetime(2026, 1, 1, 10, 20, 17, tzinfo=datetime.UTC).timestamp()
_LATE_SECONDS: Final = 15.0  # what is late by no more is not missed
_DAYS: Final = 365 + 60  # clocks are set forward, too
_EXACT_SECONDS: Final = 0.0021  # a scheduler sleeps whole milliseconds
_UTC: Final = datetime.UTC


class Periodic(NamedTuple):
    """An entry, and its slots as the rules have them."""

    name: str
    schedule: Any  # Any: one of ours
    missed: MissedPolicy
    slots: list[float]  # epoch seconds, in order
    tolerance_seconds: float = _EXACT_SECONDS

    @property
    def has_deadline(self) -> bool:
        """Whether `beat_cron_starting_deadline` counts for it."""
        return isinstance(self.schedule, crontab)


class Span(NamedTuple):
    """A time in which one scheduler led, the store was there and nobody set the clock; by the wall clock."""

    begin: float
    end: float
    served: frozenset[str] | None  # who was sent at its very end, when it ended in the middle of that


class Fate(NamedTuple):
    """What has to become of the slots of an entry."""

    sent: list[tuple[float, float]]  # slot and when
    due: int
    times_passed_over: int
    unnoted: int  # how many may have been sent by who died before that was noted


def became_of(entry: Periodic, spans: Sequence[Span], deadline_seconds: float | None) -> Fate:
    """Return what has to become of an entry's slots."""
    tolerated = _LATE_SECONDS if entry.missed == "skip" else float("inf")
    if deadline_seconds is not None and entry.has_deadline:
        tolerated = min(tolerated, deadline_seconds)
    sent: list[tuple[float, float]] = []
    last, due, times_passed_over = spans[0].begin, 0, 0
    for span in spans:
        missed = _between(entry.slots, last, span.begin)
        candidates = missed if entry.missed == "all" else missed[-1:]
        taken = [slot for slot in candidates if span.begin - slot <= tolerated]
        sent += [(slot, span.begin) for slot in taken]
        times_passed_over += bool(missed and not taken)
        end = span.end
        if span.served is not None:
            end += entry.tolerance_seconds if entry.name in span.served else -1.0
        in_time = _between(entry.slots, max(last, span.begin), end)
        sent += [(slot, slot) for slot in in_time]
        last = max([last, *missed, *in_time])
        due += len(missed) + len(in_time)
    unnoted = sum(entry.name in (span.served or ()) for span in spans)
    return Fate(sent, due, times_passed_over, unnoted)


def _between(slots: Sequence[float], after: float, until: float) -> Sequence[float]:
    return slots[bisect.bisect_right(slots, after) : bisect.bisect_right(slots, until)]


def periodic() -> list[Periodic]:
    """Return the entries of a year: each policy, each kind of schedule, several zones."""
    berlin, york, howe, nepal = (
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
    )
    halves, small = (0, 30), (1, 2, 3)
    return [
        # Berlin is the app's zone.
        Periodic("small hours", crontab("*/30", "1-3"), "all", wall(berlin, halves, small)),
        Periodic("half past two", crontab(30, 2), "skip", wall(berlin, (30,), (2,))),
        Periodic("two", crontab(0, 2), "once", wall(berlin, (0,), (2,))),
        Periodic("york", crontab(0, "*/4", tz=york), "once", wall(york, (0,), range(0, 24, 4))),
        Periodic("york, small", crontab(30, "1-3", tz=york), "skip", wall(york, (30,), small)),
        Periodic(
            "howe",
            crontab(15, "*", "sun", tz=howe),
            "all",
            wall(howe, (15,), range(24), weekdays=(7,)),
        ),
        Periodic("howe, often", crontab("*/10", 2, tz=howe), "once", wall(howe, range(0, 60, 10), (2,))),
        Periodic(
            "nepal",
            crontab(15, 9, "mon-fri", tz=nepal),
            "skip",
            wall(nepal, (15,), (9,), weekdays=(1, 2, 3, 4, 5)),
        ),
        Periodic(
            "utc",
            crontab(0, 0, day_of_month="1,15,31", tz="UTC"),
            "all",
            wall("UTC", (0,), (0,), days=(1, 15, 31)),
        ),
        Periodic("each 190 minutes", schedule(11400), "skip", every(11400)),
        Periodic("each 6 hours", schedule(datetime.timedelta(hours=6)), "all", every(6 * 3600)),
        Periodic("each 2.5 days", schedule(2.5 * 86400), "once", every(2.5 * 86400)),
        Periodic("each day, relative", schedule(86400, relative=True), "once", wall(berlin, (0,), (0,))),
        Periodic("sunset", solar("sunset", 52.5, 13.4), "all", sunsets(52.5, 13.4), 1.0),
    ]  # fmt: skip


def every(seconds: float) -> list[float]:
    """Return the slots of an interval."""
    return [START + number * seconds for number in range(1, int(_DAYS * 86400 / seconds))]


def wall(
    zone_name: str,
    minutes: Sequence[int],
    hours: Sequence[int],
    *,
    weekdays: Sequence[int] = (1, 2, 3, 4, 5, 6, 7),
    days: Sequence[int] = tuple(range(1, 32)),
) -> list[float]:
    """Return the instants at which the clocks of a zone show these times; weekdays from 1, Monday."""
    zone = zoneinfo.ZoneInfo(zone_name)
    found = set()
    for day in _calendar():
        if day.isoweekday() in weekdays and day.day in days:
            found |= {
                _instant(datetime.datetime(day.year, day.month, day.day, hour, minute), zone)
                for hour in hours
                for minute in minutes
            }
    return sorted(found)


def _calendar() -> Iterator[datetime.date]:
    first = datetime.date(2026, 1, 1)
    return (first + datetime.timedelta(days=number) for number in range(-1, _DAYS))


def _instant(shown: datetime.datetime, zone: zoneinfo.ZoneInfo) -> float:
    """Return when a clock shows that first; never shown: as much later as the clock is put forward."""
    noon = shown.replace(tzinfo=_UTC)
    before, after = ((noon + datetime.timedelta(days=days)).astimezone(zone).utcoffset() for days in (-1, 1))
    assert before is not None
    assert after is not None
    candidates = [noon - before, noon - after]
    showing = [one for one in candidates if one.astimezone(zone).replace(tzinfo=None) == shown]
    return min(showing or candidates[:1]).timestamp()


def sunsets(latitude: float, longitude: float) -> list[float]:
    """Return when the sun sets there, once for each day."""
    place = ephem.Observer()
    place.lat, place.lon = str(latitude), str(longitude)
    place.elevation = place.pressure = 0
    place.horizon = "-0:34"
    found = []
    for day in _calendar():
        start = ephem.Date(datetime.datetime(day.year, day.month, day.day, 6))
        found.append(place.next_setting(ephem.Sun(), start=start).datetime().replace(tzinfo=_UTC).timestamp())
    return found
