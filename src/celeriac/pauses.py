"""The port of paused queues: what a broker remembers of them, for as long as nobody resumes them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Pauses(Protocol):
    """Remembers which queues no worker shall consume. Its calls block, and come from one thread at a time.

    It outlives workers, clients and, where messages do, the broker. It does not keep anybody from publishing.
    """

    look_seconds: float  # a node that is not told of changes may look as often as this

    def pause(self, queue: str) -> None:
        """Remember that a queue is paused; it need not exist. Nothing happens when it is already.

        Raises:
            TransportError: The broker cannot be reached, or refuses.
        """
        ...

    def resume(self, queue: str) -> None:
        """Forget that again; nothing happens when the queue was not paused.

        Raises:
            TransportError: The broker cannot be reached, or refuses.
        """
        ...

    def among(self, queues: Collection[str]) -> set[str]:
        """Return those of some queues that are paused, in one round trip.

        Raises:
            TransportError: The broker cannot be reached, or refuses.
        """
        ...

    def close(self) -> None:
        """Close the connection of these calls; the next one opens another."""
        ...
