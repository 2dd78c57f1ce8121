"""Time as an argument: the real clock, one that tests turn by hand, and Lamport's."""

from __future__ import annotations

import datetime
import time
from typing import Protocol

from celeriac.forklock import ForkLock


class Clock(Protocol):
    """What asks for the time asks one of these, so that a test can turn it."""

    def time(self) -> float:
        """Return seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...


class SystemClock:
    """The machine's clock."""

    def time(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


class TextClock:
    """Tells the time in ISO 8601, as ``datetime.now(zone).isoformat()`` does, at a third of its cost.

    Safe for threads.
    """

    def __init__(self) -> None:
        self._known: tuple[int, datetime.tzinfo | None, str, str] = (0, None, "", "")

    def now(self, zone: datetime.tzinfo) -> str:
        """Return the current time, always with microseconds, with the offset of a time zone."""
        nanoseconds = time.time_ns()
        second = nanoseconds // 1_000_000_000
        known = self._known
        if known[0] != second or known[1] is not zone:
            text = datetime.datetime.fromtimestamp(second, zone).isoformat()
            self._known = known = (second, zone, text[:19], text[19:])
        return f"{known[2]}.{nanoseconds // 1000 % 1_000_000:06d}{known[3]}"


class FakeClock:
    """A clock that stands still until it is told to move.

    Args:
        now: Where it starts, in seconds since the epoch.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now

    def time(self) -> float:
        """Return the seconds it was set to."""
        return self._now

    def monotonic(self) -> float:
        """Return the same seconds: only differences matter."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move it forward."""
        self._now += seconds


class LamportClock:
    """A logical clock that orders events of many processes (Lamport 1978).

    Args:
        value: Where it starts.
    """

    def __init__(self, value: int = 0) -> None:
        self.value: int = value
        self._lock = ForkLock()

    def forward(self, events: int = 1) -> int:
        """Count a local event, or several in a row, and return the stamp of the last."""
        with self._lock:
            self.value += events
            return self.value

    def adjust(self, other: int) -> int:
        """Take in a stamp from elsewhere and return the new value."""
        with self._lock:
            self.value = max(self.value, other) + 1
            return self.value
