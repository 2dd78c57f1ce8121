"""Which entry is due next, and sending it."""

from __future__ import annotations

import copy
import datetime
import heapq
import logging
import numbers
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from celeriac.app import Celeriac
from celeriac.beat.entry import ScheduleEntry, evaluated
from celeriac.clock import Clock, SystemClock
from celeriac.errors import ScheduleError
from celeriac.schedules import crontab

__all__ = ["DEFAULT_MAX_INTERVAL", "Scheduler", "SchedulingError", "event_t"]

DEFAULT_MAX_INTERVAL: Final = 300  # seconds
RETRY_SECONDS: Final = 5.0  # until a call that the broker did not take is sent again
_SHORTEST_SECONDS: Final = 0.001
_PRIORITY: Final = 5


class SchedulingError(Exception):
    """Raised when a call that is due could not be sent."""


class event_t(NamedTuple):  # noqa: N801 - Celery's name
    """When an entry is due, on the clock that `Scheduler` counts by."""

    time: float
    priority: int
    entry: Any  # Any: a ScheduleEntry, or what a plug-in has


class Scheduler:
    """Sends the calls of a schedule when they are due; keeps nothing on disk.

    Plug-ins subclass it: they replace `setup_schedule`, `schedule`, `reserve`, `sync` and `Entry`.

    Args:
        app: The app.
        schedule: The entries to begin with, by name.
        max_interval: The longest time between two looks, in seconds.
        Producer: Taken, and without a meaning.
        lazy: Whether `setup_schedule` is left to the caller.
        sync_every_tasks: `sync` after so many calls, beside every `sync_every` seconds.
        **kwargs: Taken, and without a meaning.
    """

    Entry: Any = ScheduleEntry
    schedule: Any = None  # Any: a mapping of entries; a property from here on
    max_interval: float = DEFAULT_MAX_INTERVAL
    sync_every: float = 180.0
    sync_every_tasks: int | None = None
    logger: logging.Logger = logging.getLogger("celery.beat")
    clock: Clock = SystemClock()
    old_schedulers: Any = None  # Any: the schedule that the heap was made of

    def __init__(
        self,
        app: Celeriac,
        schedule: Any = None,
        max_interval: float | None = None,
        Producer: Any = None,  # noqa: N803 - Celery's name
        lazy: bool = False,
        sync_every_tasks: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.app: Any = app
        self.data: Any = {} if schedule is None else schedule
        self.max_interval = max_interval or app.conf.beat_max_loop_interval or self.max_interval
        every = app.conf.beat_sync_every if sync_every_tasks is None else sync_every_tasks
        self.sync_every_tasks = every
        self._heap: list[event_t] | None = None
        self._last_sync: float | None = None
        self._tasks_since_sync = 0
        self._unsent: Any = None  # the entry whose call the broker did not take, in this tick
        if not lazy:
            self.setup_schedule()

    # --- the schedule -------------------------------------------------------------------------------

    def setup_schedule(self) -> None:
        """Read the entries; called once."""
        self.install_default_entries(self.data)
        self.merge_inplace(self.app.conf.beat_schedule)

    def install_default_entries(self, data: Any) -> None:
        """Add what every app has: the clean-up of results, where a store does not do it by itself."""
        backend = self.app.backend
        if self.app.conf.result_expires and getattr(backend, "supports_autoexpire", True) is False:
            entry = {
                "task": "celery.backend_cleanup",
                "schedule": crontab("0", "4", "*"),
                "options": {"expires": 12 * 3600},
            }
            self.update_from_dict({"celery.backend_cleanup": entry})

    def get_schedule(self) -> Any:  # Any: a mapping of entries by name
        """Return the entries by name."""
        return self.data

    def set_schedule(self, schedule: Any) -> None:
        """Replace the entries."""
        self.data = schedule

    schedule = property(lambda self: self.get_schedule(), lambda self, schedule: self.set_schedule(schedule))

    def add(self, **kwargs: Any) -> Any:  # Any: an entry
        """Add an entry, given by its arguments; return it."""
        entry = self.Entry(app=self.app, **kwargs)
        self.schedule[entry.name] = entry
        return entry

    def _maybe_entry(self, name: str, entry: Any) -> Any:
        if isinstance(entry, self.Entry):
            entry.app = self.app
            return entry
        if not isinstance(entry, Mapping):
            raise ScheduleError(
                f"an entry of beat_schedule is a dictionary with 'task' and 'schedule', not {entry!r}"
            )
        when = entry.get("schedule")
        if not isinstance(when, (numbers.Real, datetime.timedelta)) and not hasattr(when, "is_due"):
            raise ScheduleError(f"its schedule is seconds, a timedelta or a schedule, not {when!r}")
        return self.Entry(**{**entry, "name": name, "app": self.app})

    def update_from_dict(self, dict_: Mapping[str, Any]) -> None:
        """Add entries that settings describe; one that is wrong is logged and left out."""
        self.schedule.update(self._entries(dict_))

    def _entries(self, described: Mapping[str, Any]) -> dict[str, Any]:
        entries = {}
        for name, one in described.items():
            try:
                entry = self._maybe_entry(name, one)
                entry.is_due()  # a schedule that can never be is told here
            except (ScheduleError, TypeError, ValueError) as exc:
                self.logger.error("beat: The entry %r is left out: %s", name, exc)
            else:
                entries[name] = entry
        return entries

    def merge_inplace(self, b: Mapping[str, Any]) -> None:
        """Take over entries that settings describe; others go, and those that stay keep their last run."""
        schedule = self.schedule
        wanted = self._entries(b)
        for name in [name for name in schedule if name not in wanted and name != "celery.backend_cleanup"]:
            schedule.pop(name)
        for name, entry in wanted.items():
            if name in schedule:
                schedule[name].update(entry)
            else:
                schedule[name] = entry

    def schedules_equal(self, old_schedules: Any, new_schedules: Any) -> bool:
        """Return whether nothing has changed, but for the times of last runs."""
        if old_schedules is None or new_schedules is None:
            return old_schedules is new_schedules
        if old_schedules.keys() != new_schedules.keys():
            return False
        return all(
            entry is old_schedules[name] or entry == old_schedules[name]
            for name, entry in new_schedules.items()
        )

    # --- what is due --------------------------------------------------------------------------------

    def is_due(self, entry: Any) -> tuple[bool, float]:
        """Return whether an entry is due now, and after how many seconds to ask again."""
        state: tuple[bool, float] = entry.is_due()
        return state

    def _when(self, entry: Any, next_time_to_run: Any, *_: Any, **__: Any) -> float:
        # By the wall clock, as schedules are: where it is set anew, what is due is due at once.
        return self.clock.time() + (next_time_to_run or 0)

    def adjust(self, n: float, drift: float = -0.010) -> float:
        """Return a time to sleep, shortened by what a scheduler takes to wake up.

        Args:
            n: Seconds.
            drift: What is added where there are any.
        """
        return n + drift if n and n > 0 else n

    def populate_heap(self, *_: Any, **__: Any) -> None:
        """Order the entries by when they are due; one whose schedule cannot tell is logged and left out.

        It takes what plug-ins hand on to Celery's, such as ``heapify``, and has no use for it.
        """
        events = []
        for entry in self.schedule.values():
            try:
                is_due, next_seconds = self.is_due(entry)
            except ScheduleError as exc:
                self.logger.error("beat: The entry %r is left out: %s", entry.name, exc)
                continue
            if isinstance(next_seconds, numbers.Number):
                events.append(event_t(self._when(entry, 0 if is_due else next_seconds), _PRIORITY, entry))
        heapq.heapify(events)
        self._heap = events

    def tick(self, *_: Any, **__: Any) -> float:
        """Send the call that is due, if one is; return how many seconds later to tick again.

        It takes what plug-ins hand on to Celery's, such as ``heappush``, and has no use for it.
        """
        self._heed_changes()
        heap = self._heap
        if not heap:
            return self.max_interval
        until_first = heap[0].time - self.clock.time()
        if until_first > 0:
            return min(until_first, self.max_interval)
        entry = heap[0].entry
        is_due, next_seconds = self.is_due(entry)
        if not is_due:
            if not isinstance(next_seconds, numbers.Number):
                heapq.heappop(heap)  # such as a one-off that has been
                return self.max_interval
            # Never at once: a clock that is a moment behind would have us ask in a circle.
            later = max(next_seconds, _SHORTEST_SECONDS)
            heapq.heapreplace(heap, event_t(self._when(entry, later), _PRIORITY, entry))
            return 0.0
        self._send(heap, entry, next_seconds)
        return 0.0

    def _heed_changes(self) -> None:
        schedule = self.schedule
        if self._heap is None or not self.schedules_equal(self.old_schedulers, schedule):
            self.old_schedulers = copy.copy(schedule)
            self.populate_heap()

    def _send(self, heap: list[event_t], entry: Any, next_seconds: float) -> None:
        following = self.reserve(entry)
        self._unsent = None
        self.apply_entry(entry, producer=self.producer)
        if self._unsent is not None:  # the broker is away: not lost, and not in the way of others
            self.schedule[entry.name] = entry
            following, next_seconds = entry, RETRY_SECONDS
        else:
            self.sent(following)
        if isinstance(self.old_schedulers, dict):
            self.old_schedulers[entry.name] = following
        heapq.heapreplace(heap, event_t(self._when(following, next_seconds), _PRIORITY, following))

    def reserve(self, entry: Any) -> Any:  # Any: an entry
        """Note that an entry is sent now; return it as it is from now on."""
        following = self.schedule[entry.name] = next(entry)
        return following

    def sent(self, entry: Any) -> None:
        """Be told that an entry was sent; the entry says when, and how often."""

    # --- sending ------------------------------------------------------------------------------------

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send the call of an entry; what goes wrong is logged, and tried again."""
        self.logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        try:
            result = self.apply_async(entry, producer=producer, advance=False)
        except Exception as exc:
            self._unsent = entry
            text = "beat: Message Error: %s; it is sent again in %.0f s"
            self.logger.error(text, exc, RETRY_SECONDS, exc_info=exc)
        else:
            self.logger.debug("%s sent. id->%s", entry.task, getattr(result, "id", None))

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Send the call of an entry; return its result to come.

        Args:
            entry: The entry.
            producer: What to send with; the app's own without.
            advance: Whether it counts as a run.
            **kwargs: Taken, and without a meaning.

        Raises:
            SchedulingError: It could not be sent.
        """
        if advance:
            entry = self.reserve(entry)
        args = [evaluated(value) for value in entry.args or ()]
        keywords = {name: evaluated(value) for name, value in (entry.kwargs or {}).items()}
        try:
            task = self.app.tasks.get(entry.task)
            if task is not None:
                return task.apply_async(args, keywords, producer=producer, **entry.options)
            return self.send_task(entry.task, args, keywords, producer=producer, **entry.options)
        except Exception as exc:
            raise SchedulingError(f"Couldn't apply scheduled task {entry.name}: {exc}") from exc
        finally:
            self._tasks_since_sync += 1

    def send_task(self, *args: Any, **kwargs: Any) -> Any:  # Any: a result to come
        """Send a call by the task's name."""
        return self.app.send_task(*args, **kwargs)

    @property
    def producer(self) -> Any:  # Any: a producer, or None for the app's own
        """What calls are sent with; None for the app's own."""
        return None

    @property
    def connection(self) -> Any:  # Any: kombu's, for plug-ins
        """A connection to the broker, for plug-ins that want one."""
        return self.app.connection_for_write()

    # --- keeping ------------------------------------------------------------------------------------

    def should_sync(self) -> bool:
        """Return whether it is time to `sync`."""
        now = self.clock.monotonic()
        by_time = self._last_sync is None or now - self._last_sync > self.sync_every
        by_count = bool(self.sync_every_tasks) and self._tasks_since_sync >= (self.sync_every_tasks or 0)
        return by_time or by_count

    def _do_sync(self) -> None:
        try:
            self.logger.debug("beat: Synchronizing schedule...")
            self.sync()
        finally:
            self._last_sync = self.clock.monotonic()
            self._tasks_since_sync = 0

    def sync(self) -> None:
        """Write what has to be kept."""

    def close(self) -> None:
        """Write what has to be kept, and let go of it."""
        self.sync()

    @property
    def info(self) -> str:
        """A line for the banner."""
        return ""

    @property
    def trouble(self) -> str | None:
        """Why nothing is sent although it may be due; None: nothing is wrong."""
        return None
