"""Cameras: something that looks at the state of a fleet again and again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Self

from celeriac.errors import TransportError
from celeriac.hooks import Signal
from celeriac.limits import tokens_per_second
from celeriac.settings.load import import_by_name

logger: logging.Logger = logging.getLogger("celery.evcam")

_AGAIN_SECONDS: Final = 1.0  # after a lost connection


class Polaroid:
    """Looks at a state every so often, in a thread of its own; subclasses say what to do with it.

    Args:
        state: A `celeriac.events.state.State`.
        freq: Seconds between two looks.
        maxrate: Most looks, as in ``10/m``; None: no limit.
        cleanup_freq: Seconds between two calls of `on_cleanup`.
        timer: Accepted for Celery's sake.
        app: The app; a Celeriac.
    """

    app: Any = None
    timer: Any = None
    shutter_signal: Signal = Signal(name="shutter_signal")
    cleanup_signal: Signal = Signal(name="cleanup_signal")
    clear_after: bool = False  # forget after each look what has ended

    def __init__(
        self,
        state: Any,
        freq: float = 1.0,
        maxrate: float | str | None = None,
        cleanup_freq: float = 3600.0,
        timer: Any = None,
        app: Any = None,
    ) -> None:
        self.app = app or self.app
        self.state = state
        self.freq = freq
        self.cleanup_freq = cleanup_freq
        self.timer = timer or self.timer
        rate = tokens_per_second(maxrate) if maxrate else 0.0
        self._least_seconds: float = 1.0 / rate if rate else 0.0
        self._latest = float("-inf")  # when it has looked, by `time.monotonic`
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def install(self) -> None:
        """Begin to look."""
        for seconds, call in ((self.freq, self.capture), (self.cleanup_freq, self.cleanup)):
            thread = threading.Thread(
                target=self._go_on, args=(seconds, call), name="celeriac-camera", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def on_shutter(self, state: Any) -> None:
        """Look at the state; for subclasses."""

    def on_cleanup(self) -> None:
        """Throw away what is old; for subclasses."""

    def cleanup(self) -> None:
        """Have thrown away what is old."""
        logger.debug("Cleanup: Running...")
        self.cleanup_signal.send(sender=self.state)
        self.on_cleanup()

    def shutter(self) -> None:
        """Look, unless that would be more often than `maxrate` allows."""
        now = time.monotonic()
        if now - self._latest < self._least_seconds:
            return
        self._latest = now
        logger.debug("Shutter: %s", self.state)
        self.shutter_signal.send(sender=self.state)
        self.on_shutter(self.state)

    def capture(self) -> None:
        """Look, while no event is taken in."""
        self.state.freeze_while(self.shutter, clear_after=self.clear_after)

    def cancel(self) -> None:
        """Look no longer."""
        self._stopped.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _go_on(self, seconds: float, call: Callable[[], object]) -> None:
        while not self._stopped.wait(seconds):
            try:
                call()
            except Exception:  # wall: the camera is the user's, and the next look may be better
                logger.exception("The camera %s has failed", type(self).__name__)

    def __enter__(self) -> Self:
        """Begin to look."""
        self.install()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Look no longer."""
        self.cancel()


def evcam(
    app: Any,
    camera: type[Any] | str,
    *,
    freq: float = 1.0,
    maxrate: float | str | None = None,
    until: threading.Event | None = None,
) -> None:
    """Hear events, and have a camera look at what they tell, until interrupted.

    Args:
        app: The app; a Celeriac.
        camera: A class as `Polaroid`, or its dotted name.
        freq: Seconds between two looks.
        maxrate: Most looks, as in ``10/m``.
        until: Ends it when set; looked at with each event.
    """
    made = import_by_name(camera) if isinstance(camera, str) else camera
    state = app.events.State()
    with made(state, app=app, freq=freq, maxrate=maxrate) as looking:
        try:
            watch(app, {"*": state.event}, until)
        except (KeyboardInterrupt, SystemExit):
            looking.cancel()


def watch(app: Any, handlers: dict[str, Any], until: threading.Event | None = None) -> None:
    """Hear events for ever; a broker that is away is tried again.

    Args:
        app: The app; a Celeriac.
        handlers: As for `celeriac.events.receiver.EventReceiver`.
        until: Ends it when set.
    """
    while until is None or not until.is_set():
        receiver = app.events.Receiver(handlers=handlers)
        if until is not None:
            threading.Thread(target=_stop_when, args=(until, receiver), daemon=True).start()
        try:
            receiver.capture(limit=None)
        except TransportError as exc:
            logger.warning("Events are not heard: %s Trying again in %.1f s.", exc, _AGAIN_SECONDS)
            with suppress(KeyboardInterrupt):
                time.sleep(_AGAIN_SECONDS)
                continue
            return


def _stop_when(until: threading.Event, receiver: Any) -> None:
    until.wait()
    receiver.should_stop = True
