"""The periodic scheduler: sends calls when they are due."""

from __future__ import annotations

from celeriac.beat.entry import BeatLazyFunc, ScheduleEntry
from celeriac.beat.persistent import PersistentScheduler
from celeriac.beat.scheduler import DEFAULT_MAX_INTERVAL, Scheduler, SchedulingError, event_t
from celeriac.beat.service import Service
from celeriac.beat.store import Run, RunStore, SqliteRunStore

__all__ = [
    "DEFAULT_MAX_INTERVAL",
    "BeatLazyFunc",
    "PersistentScheduler",
    "Run",
    "RunStore",
    "ScheduleEntry",
    "Scheduler",
    "SchedulingError",
    "Service",
    "SqliteRunStore",
    "event_t",
]
