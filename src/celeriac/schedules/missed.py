"""Which run of a schedule is owed now, when some may have been missed.

A *slot* is a time at which a schedule is due. Slots are counted from the last one, not from when its call was
sent, so that two who reckon come to the same slots.
"""

from __future__ import annotations

import datetime
from typing import Any, Final, Literal, NamedTuple, get_args

from celeriac.errors import ScheduleError
from celeriac.schedules.cron import crontab
from celeriac.schedules.interval import schedule
from celeriac.schedules.sun import solar

__all__ = ["LATE_SECONDS", "MissedPolicy", "Owed", "checked_policy", "owed"]

MissedPolicy = Literal["skip", "once", "all"]
# A slot that is late by no more is late, not missed: longer than it takes another scheduler to take over.
LATE_SECONDS: Final = 15.0

_UTC: Final = datetime.UTC
_KINDS: Final = (schedule, crontab, solar)


class Owed(NamedTuple):
    """What to do about a schedule at a moment."""

    slot: datetime.datetime | None  # the one to be sent now; UTC
    upto: (
        datetime.datetime | None
    )  # the last slot that this deals with, sent or passed over; None: none is due
    wait_seconds: float | None  # until there is more to do; 0 when there is more now; None: never


def checked_policy(policy: Any) -> MissedPolicy:  # Any: what a program gave
    """Return the policy.

    Raises:
        ScheduleError: There is none of that name.
    """
    if policy not in get_args(MissedPolicy):
        raise ScheduleError(
            f"missed={policy!r} says nothing: it is 'skip' (runs that were missed are left out), 'once' "
            "(one run for all of them) or 'all' (each of them)"
        )
    return policy  # type: ignore[no-any-return]  # it is one of them


def owed(
    when: Any,  # Any: a schedule, of whatever class
    last: datetime.datetime,
    now: datetime.datetime,
    policy: MissedPolicy = "once",
    deadline_seconds: float | None = None,
) -> Owed:
    """Return which slot is owed.

    Args:
        when: The schedule.
        last: The last slot that was dealt with; aware.
        now: The current time; aware.
        policy: ``once``: the last slot stands for all that are due; ``all``: each comes, the oldest first;
            ``skip``: the last slot, unless it is late by more than `LATE_SECONDS`.
        deadline_seconds: Slots that are later than this are passed over, whatever the policy.

    Raises:
        NeverDue: No day is as the schedule says.
    """
    if not has_slots(when):
        return _asked(when, last)
    last, now = last.astimezone(_UTC), now.astimezone(_UTC)
    first = _next(when, last)
    if first <= last:  # an interval of nothing: due whenever somebody looks
        return Owed(now, now, 0.0)
    if first > now:
        return Owed(None, None, (first - now).total_seconds())
    tolerated_seconds = min(
        LATE_SECONDS if policy == "skip" else float("inf"),
        float("inf") if deadline_seconds is None else deadline_seconds,
    )
    if policy == "all":
        slot = first
        if (now - first).total_seconds() > tolerated_seconds:
            slot = _next(when, now - datetime.timedelta(seconds=tolerated_seconds, microseconds=1))
        if slot <= now:
            return Owed(slot, slot, 0.0)
        last_missed = _latest(when, first, now)
    else:
        last_missed = _latest(when, first, now)
        if (now - last_missed).total_seconds() <= tolerated_seconds:
            return Owed(last_missed, last_missed, _until_next(when, last_missed, now))
    return Owed(None, last_missed, _until_next(when, last_missed, now))


def has_slots(when: Any) -> bool:  # Any: as above
    """Return whether a schedule's slots can be reckoned: it is one of ours, as we made it."""
    kind = type(when)
    return any(
        isinstance(when, ours)
        and kind.is_due is ours.is_due
        and kind.remaining_estimate is ours.remaining_estimate
        for ours in _KINDS
    )


def _asked(when: Any, last: datetime.datetime) -> Owed:
    """Return what a schedule of an unknown class says; its slot goes by the name of the last run."""
    is_due, seconds = when.is_due(last)
    wait_seconds = float(seconds) if isinstance(seconds, (int, float)) else None
    return Owed(last.astimezone(_UTC), None, wait_seconds) if is_due else Owed(None, None, wait_seconds)


def _next(when: Any, after: datetime.datetime) -> datetime.datetime:
    found: datetime.datetime = when.next_run(after)
    return found.astimezone(_UTC)


def _until_next(when: Any, last: datetime.datetime, now: datetime.datetime) -> float:
    return max((_next(when, last) - now).total_seconds(), 0.0)


def _latest(when: Any, first: datetime.datetime, now: datetime.datetime) -> datetime.datetime:
    """Return the last slot up to now; the first one is not after it."""
    found: datetime.datetime = when.last_slot(first, now)
    return found
