"""The bursts of a memory broker."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from celeriac.bursts import Burst, Turn
from celeriac.clock import Clock
from celeriac.locks import PATIENCE_SECONDS


class MemoryBursts:
    """Bursts for the clients and nodes of one process, `celeriac.bursts.Bursts`.

    Args:
        clock: Says what time it is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._known: dict[str, Burst] = {}

    def join(
        self,
        name: str,
        task_id: str,
        due_seconds: float,
        keep_seconds: float,
        *,
        deadline: float = PATIENCE_SECONDS,
    ) -> tuple[str, int]:
        """See `celeriac.bursts.Bursts`."""
        with self._guard:
            now = self._clock.time()
            self._known = {name: burst for name, burst in self._known.items() if burst.until > now}
            burst = self._known.setdefault(name, Burst())
            burst.until = now + keep_seconds
            return burst.join(task_id, now, due_seconds)

    def leave(self, turn: Turn, *, deadline: float = PATIENCE_SECONDS) -> None:
        """See `celeriac.bursts.Bursts`."""
        with self._guard:
            self._known.get(turn.name, Burst()).leave(turn.number)

    def begin(self, turns: Sequence[Turn], keep_seconds: float) -> list[float]:
        """See `celeriac.bursts.Bursts`."""
        with self._guard:
            now = self._clock.time()
            told = []
            for turn in turns:
                burst = self._known.setdefault(turn.name, Burst())
                told.append(burst.begin(turn.number, now))
                burst.until = now + keep_seconds
            return told

    def close(self) -> None:
        """Do nothing: there is no connection."""
