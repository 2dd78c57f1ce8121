"""Messages whose copies are safe, and which RabbitMQ may hand out once more all the same."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from celeriac.latest import Latest
from celeriac.message import Outgoing
from celeriac.transports.amqp import topology
from celeriac.transports.amqp.connection import Message

# A message that was not acknowledged is at the head of its queue again. Not for ever: what an operator sends
# again from the dead letters looks like the first one.
_KEPT_SECONDS: Final = 300.0
_MOST: Final = 10_000

Identity = tuple[
    str, object, object, object
]  # the queue, the task's id, which retry, and how often it had been sent once more


class Replaced:
    """Originals that are to be acknowledged and not handed over, should they come again.

    A copy is confirmed before its original is acknowledged. When the connection is lost in between, or before
    RabbitMQ has read that acknowledgement, both are there. Only this node knows: another one that gets the
    original runs it as a redelivery.
    """

    def __init__(self) -> None:
        self._until: Latest[Identity, float] = Latest(_MOST)  # of the monotonic clock

    def note(self, originals: Iterable[Identity]) -> None:
        """Note originals whose copies are confirmed."""
        until = time.monotonic() + _KEPT_SECONDS
        for identity in originals:
            self._until.note(identity, until)

    def forget(self, originals: Iterable[Identity]) -> None:
        """Forget originals that RabbitMQ has let go of for certain."""
        for identity in originals:
            self._until.pop(identity, None)

    def is_back(self, message: Message, queue: str) -> bool:
        """Return whether a message is such an original, come again; it may do so more than once."""
        if not self._until or not message.redelivered:
            return False
        return self._until.get(identity_of(message, queue), 0.0) > time.monotonic()


def identity_of(message: Message, queue: str) -> Identity:
    """Return what tells a message from the copies that were sent in its place.

    Args:
        message: As it arrived.
        queue: Where it was.
    """
    id_, retries, before = topology.identifying(message)
    return (queue, id_, retries, before)


def stands_beside(copy: Outgoing, identity: Identity) -> bool:
    """Return whether a copy lies in its original's queue, and can always be told from that.

    Args:
        copy: What is sent in a message's place.
        identity: That message's.
    """
    queue, _, _, before = identity
    same_queue = copy.exchange == "" and copy.routing_key == queue
    return same_queue and copy.envelope.headers.get(topology.HEADER_ATTEMPT) != before
