"""The paused queues of a memory broker."""

from __future__ import annotations

from collections.abc import Collection


class MemoryPauses:
    """Paused queues, for as long as the process lives, `celeriac.pauses.Pauses`."""

    look_seconds: float = 1.0

    def __init__(self) -> None:
        self._queues: set[str] = set()

    def pause(self, queue: str) -> None:
        """See `celeriac.pauses.Pauses`."""
        self._queues.add(queue)

    def resume(self, queue: str) -> None:
        """See `celeriac.pauses.Pauses`."""
        self._queues.discard(queue)

    def among(self, queues: Collection[str]) -> set[str]:
        """See `celeriac.pauses.Pauses`."""
        return self._queues.intersection(queues)

    def close(self) -> None:
        """Do nothing: there is no connection."""
