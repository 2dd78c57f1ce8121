"""The port of what keeps a second call of a task out while the first is under way: locks with a holder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

# A lock whose task runs and may not run again ends so long after its worker was last heard of.
HELD_SECONDS: Final = 12.0
RENEW_SECONDS: Final = 3.0
# One whose call nobody knows to be sent: its client may have died before it could send it.
UNSENT_SECONDS: Final = 12.0
COLLECTED_SECONDS: Final = 60.0  # the same while the call waits for others, to be sent with them

PATIENCE_SECONDS: Final = 5.0  # with a store that does not answer, where nobody has less time

UNSENT_MARK: Final = "?"  # in front of the holder, where a store has to remember that


class Lock(msgspec.Struct, frozen=True):
    """What one call holds as long as others like it are not wanted."""

    name: str  # such as `shop.pay[7]`
    holder: str  # the id of the task
    seconds: float  # after which it ends, unless somebody keeps it


class Locks(Protocol):
    """Keeps the locks of a fleet. Its calls block, ``deadline`` seconds at most, and from any thread."""

    def take(self, wanted: Sequence[Lock], *, deadline: float = PATIENCE_SECONDS) -> list[str | None]:
        """Take locks, in one round trip, for calls that are to be sent.

        Returns:
            For each None when it was free and is held now, else who holds it; that may be the same holder.

        Raises:
            TransportError: The store cannot be reached, or refuses; some may have been taken.
        """
        ...

    def confirm(self, sent: Sequence[Lock], *, deadline: float = PATIENCE_SECONDS) -> None:
        """Have locks that were taken end so many seconds from now, as their calls are sent; one round trip.

        Args:
            sent: What was kept meanwhile, by whoever runs the call, is left alone; and what is not held by
                the holder named.

        Raises:
            TransportError: The store cannot be reached, or refuses; some of it may have been done.
        """
        ...

    def exchange(
        self, free: Sequence[Lock], keep: Sequence[Lock], *, deadline: float = PATIENCE_SECONDS
    ) -> list[bool]:
        """Free locks, and have others end so many seconds from now, in one round trip.

        Args:
            free: What is not held by the holder named does not matter.
            keep: What is not held by the holder named is left alone.

        Returns:
            For each that is kept whether it is held still.

        Raises:
            TransportError: The store cannot be reached, or refuses; some of it may have been done.
        """
        ...

    def close(self) -> None:
        """Close the connection; locks that are held stay so until their time is over."""
        ...


def to_header(mode: str, name: str) -> str:
    """Return what a message says of the lock that its call holds, and until when it holds it."""
    return f"{mode}:{name}"


def from_header(header: str, task_id: str, seconds: float) -> Lock:
    """Return the lock that a message says its call holds.

    Args:
        header: The header.
        task_id: The call's.
        seconds: How long it is held when nobody keeps it.
    """
    return Lock(header.partition(":")[2], task_id, seconds)
