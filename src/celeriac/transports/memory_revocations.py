"""The revocations of a memory broker."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from celeriac.clock import Clock
from celeriac.revocations import MOST, Remembered, Revocation


class MemoryRevocations:
    """What the nodes of one process shall not run, `celeriac.revocations.Revocations`.

    Args:
        clock: Its monotonic time says how old they are.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[Revocation, float] = {}  # with when it was made; the oldest first

    def note(self, revoked: Sequence[Revocation], *, kept_seconds: float) -> None:
        """See `celeriac.revocations.Revocations`."""
        now = self._clock.monotonic()
        with self._lock:
            for each in revoked:
                self._kept.pop(each, None)
                self._kept[each] = now
            young = [each for each in self._kept.items() if now - each[1] < kept_seconds]
            self._kept = dict(young[-MOST:])

    def recall(self) -> list[Remembered]:
        """See `celeriac.revocations.Revocations`."""
        now = self._clock.monotonic()
        with self._lock:
            return [Remembered(each, now - made) for each, made in self._kept.items()]
