"""Time limits inside a process: raising an exception in the user's code, and nowhere else."""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Protocol

from celeriac.errors import SoftTimeLimitExceeded

# The one who watches the clock and the one who runs do not read it at the same moment.
SLACK_SECONDS = 0.05


class SoftLimit(Protocol):
    """Entered around the user's code; only while inside can a limit strike."""

    seconds: float

    def __enter__(self) -> None:
        """The user's code begins."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """The user's code has ended: the limit cannot strike any more."""
        ...


class SeatLimit(SoftLimit, Protocol):
    """A limit that another thread tells to strike.

    Attributes:
        due: What came too early, before the user's code began, and is raised when that begins. Whoever takes
            the next job sets it to None.
    """

    due: type[BaseException] | None

    def expire(self) -> None:
        """Have `SoftTimeLimitExceeded` raised inside, if it is that late for what runs now."""
        ...

    def strike(self, kind: type[BaseException]) -> None:
        """Have an exception raised inside, whatever the time; when that has not begun yet, as it does."""
        ...


class Awaited(Protocol):
    """A coroutine that runs on an event loop of the thread that a limit is of."""

    def end(self) -> None:
        """Have it see `asyncio.CancelledError`; may be called from any thread."""
        ...

    def interrupt(self, *, end: bool) -> None:
        """Raise right here what it is due, if it is its code that runs: for handlers of signals.

        Args:
            end: Whether it has to end.
        """
        ...


class Counting:
    """Counts from entering to leaving."""

    due: type[BaseException] | None = None

    def __init__(self) -> None:
        self.seconds: float = 0.0
        self._deadline: float | None = None  # None outside
        self._awaited: Awaited | None = None

    def __enter__(self) -> None:
        """Begin to count."""
        self._deadline = time.monotonic() + self.seconds - SLACK_SECONDS

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop counting."""
        self._deadline = None

    def attend(self, awaited: Awaited | None) -> None:
        """Have a coroutine ended from now on: an exception in its loop's code would break the loop.

        Args:
            awaited: The coroutine; None: it runs no longer.
        """
        self._awaited = awaited
        if awaited is not None:
            self._raise_if_due()

    def _raise_if_due(self) -> None:
        if (due := self.due) is not None:
            self.due = self._deadline = None  # nobody leaves what could not be entered
            raise due

    def _overdue(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline


class SignalLimit(Counting):
    """A limit for a process whose signal handler calls `raise_if_overdue`: so between two bytecodes.

    The watcher's signal may come late, when its job has ended and another one runs: then it does nothing.
    """

    def raise_if_overdue(self) -> None:
        """Raise inside the user's code, if it is that late.

        Raises:
            SoftTimeLimitExceeded: It is; once for each run.
        """
        if self._awaited is not None:
            self._awaited.interrupt(end=False)
        elif self._overdue():
            self._deadline = None
            raise SoftTimeLimitExceeded


class MainThreadLimit(Counting):
    """A limit for the main thread that other threads tell to strike.

    A signal carries it there. That interrupts a sleep or a read, as `ThreadLimit` cannot. It is a real-time
    signal, because programs have uses of their own for the others. To be made in the main thread.
    """

    SIGNAL = signal.SIGRTMIN + 3

    def __init__(self) -> None:
        super().__init__()
        self._main = threading.get_ident()
        self._ordered: type[BaseException] | None = None
        self.due: type[BaseException] | None = None

    def __enter__(self) -> None:
        """Begin to count, unless it is to end at once."""
        super().__enter__()
        self._raise_if_due()

    def expire(self) -> None:
        """Have the exception raised inside the user's code, if it is that late."""
        self.strike(SoftTimeLimitExceeded)

    def strike(self, kind: type[BaseException]) -> None:
        """Have an exception raised inside the user's code."""
        self._ordered = kind
        signal.pthread_kill(self._main, self.SIGNAL)

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Strike; to be installed as the handler of `SIGNAL`."""
        kind, self._ordered = self._ordered, None
        if self._awaited is not None and kind is not None:
            ends = kind is not SoftTimeLimitExceeded
            if ends:
                self._awaited.end()
            self._awaited.interrupt(end=ends)
            return
        if kind is None or (kind is SoftTimeLimitExceeded and not self._overdue()):
            return
        if self._deadline is None:
            self.due = kind
            return
        raise kind


class ThreadLimit(Counting):
    """A limit for one of several threads.

    Python raises at the thread's next bytecode; a call that blocks in C is not interrupted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = 0
        self._struck = False
        self._lock = threading.Lock()
        self.due: type[BaseException] | None = None

    def __enter__(self) -> None:
        """Begin to count, unless it is to end at once."""
        self._thread = threading.get_ident()
        self._struck = False
        with self._lock:
            super().__enter__()
            self._raise_if_due()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop counting, and take back what was about to be raised."""
        with self._lock:
            super().__exit__(kind, exc, tb)
        if self._struck:
            _absorb()

    def expire(self) -> None:
        """Have the exception raised inside the user's code, if it is that late."""
        with self._lock:
            if self._overdue() and not self._struck:
                self._struck = True
                _raise_in(self._thread, SoftTimeLimitExceeded)

    def attend(self, awaited: Awaited | None) -> None:
        """Have a coroutine ended from now on."""
        with self._lock:
            super().attend(awaited)

    def strike(self, kind: type[BaseException]) -> None:
        """Have an exception raised inside the user's code, or its coroutine see its cancellation."""
        with self._lock:
            if self._awaited is not None:
                self._awaited.end()
            elif self._deadline is not None:
                self._struck = True
                _raise_in(self._thread, kind)
            else:
                self.due = kind


class _Absorbed(BaseException):
    """Raised and caught in one place, in exchange for what was about to be raised."""


def _absorb() -> None:
    """Have whatever was about to be raised in this thread raised and caught here.

    Taking it back by setting None would leave the interpreter's flag for such exceptions up until the next
    one arrives somewhere: every bytecode that looks at it is slower then, and under a profile function
    Python 3.11 never gets past the first one.
    """
    try:
        _raise_in(threading.get_ident(), _Absorbed)
        while True:
            pass
    except _Absorbed:
        return


def _raise_in(thread: int, kind: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))
