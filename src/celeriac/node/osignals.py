"""What the operating system's signals mean to a worker. Handlers only enqueue; the loop acts."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


class Signals:
    """Passes signals on to the loop, as long as it is entered. To be used in the main thread.

    SIGUSR1 writes the stacks of all threads to standard error, also when the loop hangs.

    Args:
        loop: Where to act.
        act: Called there with the signal's number.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, act: Callable[[int], None]) -> None:
        self._loop = loop
        self._act = act
        self._before: dict[int, Any] = {}  # Any: what signal.signal returns

    def __enter__(self) -> None:
        """Install the handlers."""
        for number in HANDLED:
            self._before[number] = signal.signal(number, self._enqueue)
        if sys.__stderr__ is not None:
            faulthandler.register(signal.SIGUSR1, file=sys.__stderr__, all_threads=True)

    def __exit__(self, *exc_info: object) -> None:
        """Put back what was there before."""
        faulthandler.unregister(signal.SIGUSR1)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _enqueue(self, number: int, frame: FrameType | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._act, number)


def meaning(number: int) -> int:
    """Return the signal that a signal stands for: ``REMAP_SIGTERM=SIGQUIT`` makes TERM mean QUIT."""
    if number == signal.SIGTERM and os.environ.get("REMAP_SIGTERM") == "SIGQUIT":
        return signal.SIGQUIT
    return number
