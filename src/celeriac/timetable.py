"""The port of what all schedulers of an app share: who of them leads, and lines that they agree on.

Leading needs no clock that others have to trust: who leads counts its *term* up every few seconds, and who
has seen the same term for too long takes over. What a leader writes is refused once its term is another's
(fencing), so one that was frozen and wakes up changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

import msgspec

from celeriac.message import Outgoing

NOBODY: Final = ""


class Lead(msgspec.Struct, frozen=True):
    """Who leads."""

    holder: str = NOBODY
    term: int = 0
    at: float = 0.0  # when that was said, by the holder's clock, in epoch seconds; for people


class Line(msgspec.Struct, frozen=True):
    """What is kept under a key; no value is what is left of a line that was removed."""

    value: bytes | None
    revision: int


class Changes(msgspec.Struct, frozen=True):
    """The lines that were written after a revision."""

    revision: int  # of the newest
    lines: dict[str, Line]


class Timetable(Protocol):
    """Keeps the timetable of one app. Its calls block, and may be made from one thread at a time."""

    address: str  # for people: where it is kept, passwords hidden

    def lead(self) -> Lead:
        """Return who leads.

        Raises:
            TransportError, BackendError: The store cannot be reached, or refuses; so with all of these.
        """
        ...

    def take(self, holder: str, term: int, at: float) -> bool:
        """Take the lead, or keep it, in the next term; only if the term is still the given one. Atomic.

        Args:
            holder: Who; `NOBODY` gives the lead back.
            term: The term that is to end.
            at: The time, in epoch seconds; for people.
        """
        ...

    def changes(self, after: int) -> Changes:
        """Return what was written after a revision; after 0 that is everything."""
        ...

    def write(self, lines: Mapping[str, bytes | None], term: int) -> bool:
        """Write lines as the leader of a term: all of them, or none when that term is over. Atomic.

        Args:
            lines: By key; None removes one.
            term: The writer's.
        """
        ...

    def edit(self, key: str, value: bytes | None, revision: int) -> bool:
        """Write a line that is still as it was at a revision, whoever leads; say whether it was. Atomic.

        Args:
            key: The line's.
            value: None removes it.
            revision: Of the line as the writer knows it; 0 when there has never been one.
        """
        ...

    def close(self) -> None:
        """Let go of it; the next call opens it again."""
        ...


@runtime_checkable
class SendsAlong(Protocol):
    """What a timetable has besides when it is at a broker that sends messages and notes that in one step."""

    address: str  # of that broker

    def send(
        self, batch: Sequence[Outgoing], lines: Mapping[str, bytes | None], term: int, *, deadline: float
    ) -> None:
        """Send messages and write lines as the leader of a term: all of it, or nothing.

        Args:
            batch: What to send.
            lines: By key; None removes one.
            term: The sender's.
            deadline: Budget in seconds.

        Raises:
            TransportError: The term is over, or the broker refuses: nothing was done. Or the connection was
                lost meanwhile, and the lead with it: who leads next sees in the lines whether it was done.
        """
        ...
