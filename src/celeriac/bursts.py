"""The port of what finds the last of many calls: bursts of debounced calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from celeriac.locks import PATIENCE_SECONDS

# For so long after the last call of a burst was due the others wait for it to begin: its sender may have died
# before it could be sent.
GRACE_SECONDS: Final = 60.0
MARGIN_SECONDS: Final = 0.5  # after it is due they ask again, then after as long as it is overdue
OVER: Final = -1.0


class Turn(msgspec.Struct, frozen=True):
    """One call among those that are debounced together."""

    name: str  # such as `shop.index[7]`
    number: int  # higher than those of all calls before


class Bursts(Protocol):
    """Keeps the bursts of a fleet. Its calls block, ``deadline`` seconds at most, and from any thread.

    A burst begins with a call, and ends when its last one begins to run. Its calls have the id of the first.
    """

    def join(
        self,
        name: str,
        task_id: str,
        due_seconds: float,
        keep_seconds: float,
        *,
        deadline: float = PATIENCE_SECONDS,
    ) -> tuple[str, int]:
        """Make a call the last one of its burst, in one round trip.

        Args:
            name: What the calls have in common.
            task_id: The call's own id.
            due_seconds: After which it shall run.
            keep_seconds: How long the burst is remembered.

        Returns:
            The id of the burst, which is the call's own if it is the first; and the number of its turn.

        Raises:
            TransportError: The store cannot be reached, or refuses; it may have become the last one.
        """
        ...

    def leave(self, turn: Turn, *, deadline: float = PATIENCE_SECONDS) -> None:
        """Have nobody wait for a call that was not sent.

        Raises:
            TransportError: The store cannot be reached, or refuses.
        """
        ...

    def begin(self, turns: Sequence[Turn], keep_seconds: float) -> list[float]:
        """Say which of the calls, whose time has come, shall run, in one round trip.

        Nothing is dropped before something later has begun, so no call is lost with what never came.

        Args:
            turns: The calls.
            keep_seconds: How long the burst is remembered.

        Returns:
            For each 0 when it is to run, also when it was told so before; `OVER` when a later one has begun;
            else seconds after which to ask again, as a later one is on its way.

        Raises:
            TransportError: The store cannot be reached, or refuses.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Burst(msgspec.Struct):
    """What is known of the calls of a name: the rule for stores that can run it."""

    id: str = ""  # of the burst; "" when it is over
    last: int = 0
    due: float = 0.0  # epoch seconds, of the last one
    over: int = 0  # up to this number others have begun in their place
    begun: list[int] = []  # the latest that have begun: they may come again
    until: float = 0.0  # epoch seconds: to be forgotten

    def join(self, task_id: str, now: float, due_seconds: float) -> tuple[str, int]:
        """See `Bursts.join`."""
        self.id = self.id or task_id
        self.last = max(
            self.last + 1, int(now * 1000)
        )  # higher than before, also when the past was forgotten
        self.due = now + due_seconds
        return self.id, self.last

    def leave(self, number: int) -> None:
        """See `Bursts.leave`."""
        if number == self.last:
            self.due = 0.0

    def begin(self, number: int, now: float) -> float:
        """See `Bursts.begin`."""
        if number in self.begun:
            return 0.0
        if number <= self.over:
            return OVER
        if number < self.last and now < self.due + GRACE_SECONDS:
            return self.due - now + MARGIN_SECONDS if now < self.due else max(MARGIN_SECONDS, now - self.due)
        self.begun = [*self.begun[-19:], number]
        self.over = max(self.last, number) - 1
        self.id = ""
        return 0.0


def to_header(turn: Turn) -> str:
    """Return what a message says of its turn."""
    return f"{turn.number}:{turn.name}"


def from_header(header: str) -> Turn:
    """Return the turn of a message.

    Raises:
        ValueError: It says nothing that could be one.
    """
    number, _, name = header.partition(":")
    return Turn(name, int(number))
