"""A thread that calls functions at given times: kombu's schedule in a thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from kombu.asynchronous.timer import Entry, to_timestamp
from kombu.asynchronous.timer import Timer as Schedule
from kombu.log import get_logger

__all__ = ("Entry", "Schedule", "Timer", "to_timestamp")

logger: logging.Logger = get_logger("celery.utils.timer2")


class Timer(threading.Thread):
    """Calls functions at given times, in a thread that starts with the first of them.

    Args:
        schedule: What keeps the entries.
        on_error: Called with what a function raised.
        on_tick: Called with the seconds until the next entry.
        on_start: Called with the timer when it starts.
        max_interval: The longest sleep.
        **kwargs: For the schedule.
    """

    Entry = Entry
    Schedule = Schedule
    running: bool = False

    def __init__(
        self,
        schedule: Any = None,
        on_error: Callable[[Exception], None] | None = None,
        on_tick: Callable[[float], None] | None = None,
        on_start: Callable[[Timer], None] | None = None,
        max_interval: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name="Timer", daemon=True)
        self.schedule: Any = schedule or self.Schedule(on_error=on_error, max_interval=max_interval, **kwargs)
        self.max_interval: float = max_interval or 2.0
        self.on_tick = on_tick
        self.on_start = on_start
        self._changed = threading.Condition()
        self._shall_stop = False

    def run(self) -> None:
        """Call what is due until stopped."""
        self.running = True
        scheduler = iter(self.schedule)
        while not self._shall_stop:
            with self._changed:
                delay, entry = next(scheduler)
                if not entry:
                    seconds = min(self.max_interval if delay is None else delay, self.max_interval)
                    if self.on_tick is not None:
                        self.on_tick(seconds)
                    if not self._shall_stop:
                        self._changed.wait(seconds)
                    continue
            self.schedule.apply_entry(entry)
        self.running = False

    def stop(self) -> None:
        """End, and wait for that."""
        with self._changed:
            self._shall_stop = True
            self._changed.notify()
        if self.is_alive() and threading.current_thread() is not self:
            self.join()

    def ensure_started(self) -> None:
        """Start the thread, if it has not been."""
        if not self.is_alive() and not self._shall_stop:
            if self.on_start is not None:
                self.on_start(self)
            self.start()

    def _add(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.ensure_started()
        with self._changed:
            entry = getattr(self.schedule, name)(*args, **kwargs)
            self._changed.notify()
        return entry

    def enter(
        self, entry: Any, eta: float, priority: int | None = None
    ) -> Any:  # Any: an Entry, here and below
        """Call an entry at a time."""
        return self._add("enter_at", entry, eta, priority=priority or 0)

    def call_at(self, *args: Any, **kwargs: Any) -> Any:
        """Call a function at a time: ``eta, fun, args=(), kwargs=None, priority=0``."""
        return self._add("call_at", *args, **kwargs)

    def enter_after(self, *args: Any, **kwargs: Any) -> Any:
        """Call an entry after seconds: ``secs, entry, priority=0``."""
        return self._add("enter_after", *args, **kwargs)

    def call_after(self, *args: Any, **kwargs: Any) -> Any:
        """Call a function after seconds: ``secs, fun, args=(), kwargs=None, priority=0``."""
        return self._add("call_after", *args, **kwargs)

    def call_repeatedly(self, *args: Any, **kwargs: Any) -> Any:
        """Call a function every so many seconds: ``secs, fun, args=(), kwargs=None, priority=0``."""
        return self._add("call_repeatedly", *args, **kwargs)

    def exit_after(self, secs: float, priority: int = 10) -> None:
        """End the program after seconds."""

        def end() -> None:
            raise SystemExit

        self.call_after(secs, end, priority=priority)

    def cancel(self, tref: Any) -> None:
        """Do not call an entry."""
        tref.cancel()

    def clear(self) -> None:
        """Do not call any."""
        self.schedule.clear()

    def empty(self) -> bool:
        """Return whether there is none."""
        return not len(self)

    def __len__(self) -> int:
        return len(self.schedule)

    def __bool__(self) -> bool:
        return True

    @property
    def queue(self) -> Any:
        """The entries, in order."""
        return self.schedule.queue
