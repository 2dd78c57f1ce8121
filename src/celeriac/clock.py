"""Time as an argument: the real clock, one that tests turn by hand, and Lamport's."""

from __future__ import annotations

import threading
import time
from typing import Protocol


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
        self.value = value
        self._lock = threading.Lock()

    def forward(self) -> int:
        """Count one local event and return its stamp."""
        with self._lock:
            self.value += 1
            return self.value

    def adjust(self, other: int) -> int:
        """Take in a stamp from elsewhere and return the new value."""
        with self._lock:
            self.value = max(self.value, other) + 1
            return self.value
