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
_SLACK_SECONDS = 0.05


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


class _Counting:
    """Counts from entering to leaving."""

    due: type[BaseException] | None = None

    def __init__(self) -> None:
        self.seconds: float = 0.0
        self._deadline: float | None = None  # None outside

    def __enter__(self) -> None:
        """Begin to count."""
        self._deadline = time.monotonic() + self.seconds - _SLACK_SECONDS

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop counting."""
        self._deadline = None

    def _raise_if_due(self) -> None:
        if (due := self.due) is not None:
            self.due = self._deadline = None  # nobody leaves what could not be entered
            raise due

    def _overdue(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline


class SignalLimit(_Counting):
    """A limit for a process whose signal handler calls `raise_if_overdue`: so between two bytecodes.

    The watcher's signal may come late, when its job has ended and another one runs: then it does nothing.
    """

    def raise_if_overdue(self) -> None:
        """Raise inside the user's code, if it is that late.

        Raises:
            SoftTimeLimitExceeded: It is; once for each run.
        """
        if self._overdue():
            self._deadline = None
            raise SoftTimeLimitExceeded


class MainThreadLimit(_Counting):
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
        if kind is None or (kind is SoftTimeLimitExceeded and not self._overdue()):
            return
        if self._deadline is None:
            self.due = kind
            return
        raise kind


class ThreadLimit(_Counting):
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

    def strike(self, kind: type[BaseException]) -> None:
        """Have an exception raised inside the user's code."""
        with self._lock:
            if self._deadline is not None:
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
