"""Soft time limits: raising `SoftTimeLimitExceeded` inside the user's code, and nowhere else."""

from __future__ import annotations

import ctypes
import threading
import time
from types import TracebackType
from typing import Protocol

from celeriac.errors import SoftTimeLimitExceeded

# The one who watches the clock and the one who runs do not read it at the same moment.
_SLACK_SECONDS = 0.05


class SoftLimit(Protocol):
    """Entered around the user's code; while inside, the limit can strike."""

    seconds: float

    def __enter__(self) -> None:
        """The user's code begins."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """The user's code has ended: the limit cannot strike any more."""
        ...


class SignalLimit:
    """A limit for the main thread: `expire` is called by a signal handler, so between two bytecodes of it.

    The watcher's signal may come late, when its job has ended and another one runs: then it does nothing.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._deadline: float | None = None

    def __enter__(self) -> None:
        """Begin to count."""
        self._deadline = time.monotonic() + self.seconds - _SLACK_SECONDS

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop counting."""
        self._deadline = None

    def expire(self) -> None:
        """Raise inside the user's code, if it is that late.

        Raises:
            SoftTimeLimitExceeded: It is; once for each run.
        """
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._deadline = None
            raise SoftTimeLimitExceeded


class ThreadLimit:
    """A limit for one of several threads: `expire` is called from another one.

    Python raises it at the thread's next bytecode; a call that blocks in C is not interrupted.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._deadline: float | None = None
        self._thread = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        """Begin to count."""
        self._thread = threading.get_ident()
        self._deadline = time.monotonic() + self.seconds - _SLACK_SECONDS

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop counting, and take back what was about to be raised."""
        with self._lock:
            self._deadline = None
            _raise_in(self._thread, None)

    def expire(self) -> None:
        """Have the exception raised inside the user's code, if it is that late."""
        with self._lock:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._deadline = None
                _raise_in(self._thread, SoftTimeLimitExceeded)


def _raise_in(thread: int, exception: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(exception) if exception is not None else None
    )
