"""The loop that ticks a scheduler until it is told to stop."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from celeriac import drivers
from celeriac.app import Celeriac
from celeriac.beat.health import asked_over_http
from celeriac.beat.persistent import PersistentScheduler
from celeriac.beat.pulse import Pulse
from celeriac.errors import ConfigError
from celeriac.node.health.address import HttpAddress, http_address

__all__ = ["Service", "address_of"]

logger: logging.Logger = logging.getLogger("celery.beat")

_BUILT_IN: Final = dict.fromkeys(
    ("celery.beat:PersistentScheduler", "celery.beat.PersistentScheduler"),
    "celeriac.beat.persistent:PersistentScheduler",
) | dict.fromkeys(("celery.beat:Scheduler", "celery.beat.Scheduler"), "celeriac.beat.scheduler:Scheduler")
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 30.0
# Python runs signal handlers in the main thread alone, between two of its steps: one that comes after the
# last of them and before the thread sleeps wakes nobody.
_HEED_SECONDS: Final = 0.5


class Service:
    """Runs a scheduler.

    Args:
        app: The app.
        max_interval: The longest time between two looks at the schedule, in seconds.
        schedule_filename: The file that keeps when entries were sent.
        scheduler_cls: Class, dotted name or entry point of the scheduler.
    """

    scheduler_cls: Any = PersistentScheduler

    def __init__(
        self,
        app: Celeriac,
        max_interval: float | None = None,
        schedule_filename: str | None = None,
        scheduler_cls: Any = None,
    ) -> None:
        self.app: Any = app
        self.max_interval: float | None = max_interval or app.conf.beat_max_loop_interval
        self.scheduler_cls = scheduler_cls or app.conf.beat_scheduler or self.scheduler_cls
        self.schedule_filename: str = schedule_filename or app.conf.beat_schedule_filename
        self.pulse: Pulse = Pulse()
        self._scheduler: Any = None
        self._is_shutdown = threading.Event()
        self._is_stopped = threading.Event()

    @property
    def scheduler(self) -> Any:  # Any: a Scheduler, or a plug-in's
        """The scheduler, made when first asked for."""
        if self._scheduler is None:
            self._scheduler = self.get_scheduler()
        return self._scheduler

    def get_scheduler(self, lazy: bool = False, extension_namespace: str = "celery.beat_schedulers") -> Any:
        """Make the scheduler.

        Args:
            lazy: Whether its schedule is not read yet.
            extension_namespace: The entry points by which other packages name theirs.

        Raises:
            ConfigError: There is none of that name.
        """
        return self._class(extension_namespace)(
            app=self.app,
            schedule_filename=self.schedule_filename,
            max_interval=self.max_interval,
            lazy=lazy,
        )

    def _class(self, group: str) -> Any:
        wanted = self.scheduler_cls
        if not isinstance(wanted, str):
            return wanted
        try:
            return drivers.find(wanted, _BUILT_IN, group) or drivers.load(wanted)
        except (ImportError, AttributeError, ValueError) as exc:
            raise ConfigError(
                f"beat_scheduler {wanted!r} cannot be loaded: {exc}. Give a class as module:Class, or the "
                "name of an installed scheduler."
            ) from exc

    def start(self, embedded_process: bool = False) -> None:
        """Tick until `stop`, then write what has to be kept.

        Args:
            embedded_process: Whether it is a part of a worker.

        Raises:
            ConfigError: Nothing can listen at the address of ``beat_http_address``.
        """
        logger.info("beat: Starting...")
        scheduler = self.scheduler
        logger.debug("beat: Ticking with max interval->%.2f s", scheduler.max_interval)
        self._announce(embedded_process)
        try:
            with asked_over_http(scheduler, self.pulse, address_of(self.app)):
                self._tick()
        finally:
            logger.info("beat: Shutting down...")
            self.sync()

    def _tick(self) -> None:
        scheduler = self.scheduler
        pause_seconds = _FIRST_PAUSE_SECONDS
        while not self._is_shutdown.is_set():
            try:
                interval = scheduler.tick()
                if scheduler.should_sync():
                    scheduler._do_sync()
            except Exception as exc:
                # The wall: the database of a plug-in may be away for a while, and beat goes on.
                logger.exception("beat: The schedule cannot be followed; again in %.0f s", pause_seconds)
                self.pulse.looked(pause_seconds, f"the schedule cannot be followed: {exc}")
                self._pause(pause_seconds)
                pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
                continue
            pause_seconds = _FIRST_PAUSE_SECONDS
            # Those of other packages need not know what trouble is.
            self.pulse.looked(interval or 0.0, getattr(scheduler, "trouble", None))
            if interval and interval > 0:
                self._pause(interval)

    def _pause(self, seconds: float) -> None:
        """Wait, unless told to stop."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._is_shutdown.is_set():
            self._is_shutdown.wait(min(left, _HEED_SECONDS))

    def _announce(self, embedded: bool) -> None:
        hooks = self.app.hooks
        hooks.beat_init.send(sender=self)
        if embedded:
            hooks.beat_embedded_init.send(sender=self)

    def sync(self) -> None:
        """Write what has to be kept, and end the wait of `stop`."""
        try:
            if self._scheduler is not None:
                self._scheduler.close()
        finally:
            self._is_stopped.set()

    def stop(self, wait: bool = False) -> None:
        """Stop ticking; may be called by a signal handler and from another thread.

        Args:
            wait: Whether to return only when the schedule is written.
        """
        self._is_shutdown.set()
        if wait:
            self._is_stopped.wait()


def address_of(app: Any) -> HttpAddress | None:  # Any: a Celeriac
    """Return where the schedulers of an app are asked how they are.

    Raises:
        ConfigError: ``beat_http_address`` is no address.
    """
    return http_address(app.conf.beat_http_address, "beat_http_address")
