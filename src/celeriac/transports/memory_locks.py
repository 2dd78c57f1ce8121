"""The locks of a memory broker."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from celeriac.clock import Clock
from celeriac.locks import PATIENCE_SECONDS, Lock


class MemoryLocks:
    """Locks for the clients and nodes of one process, `celeriac.locks.Locks`.

    Args:
        clock: Its monotonic time says when locks end.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        # By name: the holder, when it ends, and whether its call is known to be sent.
        self._held: dict[str, tuple[str, float, bool]] = {}

    def take(self, wanted: Sequence[Lock], *, deadline: float = PATIENCE_SECONDS) -> list[str | None]:
        """See `celeriac.locks.Locks`."""
        with self._guard:
            now = self._clock.monotonic()
            self._held = {name: held for name, held in self._held.items() if held[1] > now}
            holders: list[str | None] = []
            for lock in wanted:
                held = self._held.get(lock.name)
                holders.append(None if held is None else held[0])
                if held is None:
                    self._held[lock.name] = lock.holder, now + lock.seconds, False
            return holders

    def confirm(self, sent: Sequence[Lock], *, deadline: float = PATIENCE_SECONDS) -> None:
        """See `celeriac.locks.Locks`."""
        with self._guard:
            now = self._clock.monotonic()
            for lock in sent:
                if self._holds(lock, now) and not self._held[lock.name][2]:
                    self._held[lock.name] = lock.holder, now + lock.seconds, True

    def exchange(
        self, free: Sequence[Lock], keep: Sequence[Lock], *, deadline: float = PATIENCE_SECONDS
    ) -> list[bool]:
        """See `celeriac.locks.Locks`."""
        with self._guard:
            now = self._clock.monotonic()
            for lock in free:
                if self._holds(lock, now):
                    del self._held[lock.name]
            kept = [self._holds(lock, now) for lock in keep]
            for lock, held in zip(keep, kept, strict=True):
                if held:
                    self._held[lock.name] = lock.holder, now + lock.seconds, True
            return kept

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _holds(self, lock: Lock, now: float) -> bool:
        holder, until, _ = self._held.get(lock.name, ("", 0.0, True))
        return holder == lock.holder and until > now
