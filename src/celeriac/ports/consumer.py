"""The port of a consumer: leases messages to one node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from celeriac.message import Delivery, Verdict
from celeriac.queues import Queue


class ConsumeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a node wants to consume, and on which terms."""

    queues: tuple[Queue, ...]
    node: str  # node name, such as celery@host
    prefetch: int = 0  # most deliveries outstanding at once; 0 = no limit
    lease_seconds: float = 15.0
    siblings: tuple[Queue, ...] = ()  # all queues of the app: what is sent to one may depend on another


class Consumer(Protocol):
    """Leases messages to one node. Asynchronous only: nobody but a node consumes."""

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """Wait for at least one message and return at most ``limit``, leased in one atomic step.

        Cancelling it loses nothing: a message is either returned by the next call or still at the broker.
        A message that cannot be read comes with ``defect`` set, never as an exception. Unless the broker is
        strict about it, queues take turns, so that a full one cannot starve another; within a queue it is
        priority first, then first in, first out; with ``caps.rounds`` messages that have a key take turns
        by it before that.

        Raises:
            TransportError: The connection was lost; the node calls again after a pause and the consumer
                reconnects by itself. Deliveries that the broker has taken back are then void: settling
                them does nothing.
        """
        ...

    async def settle(self, verdicts: Sequence[tuple[Delivery, Verdict]]) -> None:
        """Carry out the verdicts, in one round trip for all.

        Settling a delivery whose lease was lost does nothing to the message (fencing). ``Start`` leaves the
        delivery outstanding; every other verdict ends it.
        """
        ...

    async def renew(self) -> None:
        """Extend the leases of everything outstanding, in one call; take back what dead nodes left."""
        ...

    def holds(self, delivery: Delivery) -> bool:
        """Return whether a delivery is ours and not settled yet, as far as we know.

        Who was silent for longer than its lease may be taken for dead; right after `renew` this is certain.
        """
        ...

    async def set_prefetch(self, limit: int) -> None:
        """Change how many deliveries may be outstanding; 0 = no limit."""
        ...

    async def add_queue(self, queue: Queue) -> None:
        """Consume from one more queue, declared first."""
        ...

    async def cancel_queue(self, name: str) -> None:
        """Stop consuming from a queue; deliveries already taken stay ours."""
        ...

    async def close(self) -> None:
        """Hand back at once whatever is outstanding and was not started, then let go of the connection."""
        ...


class Tethered(Protocol):
    """What a consumer has besides where its connection is the lease (``caps.leases`` is false)."""

    async def lost(self) -> None:
        """Return as soon as the connection is lost, and with it all that is held; `receive` then raises why.

        A node that has no room receives nothing, and would begin what others have by now.
        """
        ...

    def unseen(self) -> Sequence[Delivery]:
        """Return what was sent to us and nobody has received, without waiting; to be settled as the rest."""
        ...

    def came_to_nothing(self, deliveries: Iterable[Delivery]) -> None:
        """Hear which deliveries had not begun when the connection was lost: they do not count as attempts."""
        ...


class Unheard(Protocol):
    """What a consumer has besides where ``caps.hands_over``: messages that it asked for come long after that.

    By then the broker may hear it no more.
    """

    @property
    def heard_at(self) -> float:
        """When the broker has last answered a call of ours; the loop's time."""
        ...

    def touch(self, done: Callable[[bool], None]) -> None:
        """Ask the broker for an answer, and call ``done`` with whether there was one.

        That is called on the loop as early as possible, at once without a connection. It must not raise.
        """
        ...
