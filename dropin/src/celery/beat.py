"""The periodic scheduler: Celeriac's, with the names that schedulers of other packages subclass."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from celeriac.beat import (
    DEFAULT_MAX_INTERVAL,
    BeatLazyFunc,
    PersistentScheduler,
    ScheduleEntry,
    Scheduler,
    SchedulingError,
    Service,
    event_t,
)
from celeriac.beat.entry import evaluated
from celery.schedules import maybe_schedule

__all__ = (
    "DEFAULT_MAX_INTERVAL",
    "BeatLazyFunc",
    "EmbeddedService",
    "PersistentScheduler",
    "ScheduleEntry",
    "Scheduler",
    "SchedulingError",
    "Service",
    "event_t",
)

logger: logging.Logger = logging.getLogger("celery.beat")

ScheduleEntry.make_schedule = staticmethod(maybe_schedule)


def _evaluate_entry_args(entry_args: Iterable[Any] | None) -> list[Any]:
    return [evaluated(value) for value in entry_args or ()]


def _evaluate_entry_kwargs(entry_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: evaluated(value) for name, value in (entry_kwargs or {}).items()}


class _Threaded(threading.Thread):
    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(name="Beat", daemon=True)
        self.app = app
        self.service = Service(app, **kwargs)

    def run(self) -> None:
        """Tick until stopped."""
        self.service.start()

    def stop(self) -> None:
        """Stop, and wait for that."""
        self.service.stop(wait=True)


def EmbeddedService(app: Any, max_interval: float | None = None, thread: bool = False, **kwargs: Any) -> Any:  # noqa: N802 - Celery's name
    """Return a scheduler that runs beside other things, to be started.

    Args:
        app: The app.
        max_interval: The longest time between two looks at the schedule, in seconds.
        thread: Taken, and without a meaning: it is a thread in any case.
        **kwargs: For `Service`.
    """
    return _Threaded(app, max_interval=max_interval, **kwargs)
