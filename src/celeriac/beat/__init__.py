"""The periodic scheduler: sends calls when they are due."""

from __future__ import annotations

from celeriac.beat.entry import BeatLazyFunc, ScheduleEntry
from celeriac.beat.persistent import PersistentScheduler
from celeriac.beat.scheduler import DEFAULT_MAX_INTERVAL, Scheduler, SchedulingError, event_t
from celeriac.beat.service import Service

__all__ = [
    "DEFAULT_MAX_INTERVAL",
    "BeatLazyFunc",
    "PersistentScheduler",
    "ScheduleEntry",
    "Scheduler",
    "SchedulingError",
    "Service",
    "event_t",
]
