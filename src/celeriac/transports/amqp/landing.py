"""Landing: a node has what waits in Celery's delayed delivery arrive in its queues."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Final

from celeriac.errors import TransportError
from celeriac.ports import ConsumeSpec
from celeriac.queues import Queue
from celeriac.transports.amqp import delays, topology
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.errand import errand
from celeriac.transports.amqp.link import Link

logger: logging.Logger = logging.getLogger(__name__)

_CHANNEL: Final = 1
_PATIENCE_SECONDS: Final = 10.0  # RabbitMQ makes 28 quorum queues the first time, and none later


class Landing:
    """Declares the exchanges and bindings of delayed delivery, as a worker of Celery does when it starts.

    Clients of Celery send through them what is to wait when any queue of their app is a quorum queue, to
    queues of all kinds that are not behind a direct exchange; RabbitMQ refuses what they send, or drops it,
    as long as no worker has made them.

    Args:
        spec: What the node consumes.
        kind: The type of the queues in which messages wait; None: nothing is declared.
    """

    def __init__(self, spec: ConsumeSpec, kind: delays.QueueType | None) -> None:
        self._kind = kind
        self._siblings = spec.siblings

    async def prepare(self, address: Address, queues: Sequence[Queue]) -> None:
        """Declare what leads into these queues; warn when that fails, for all else works without.

        Over a connection of its own: RabbitMQ closes the channel on which it refuses something.

        Args:
            address: The broker that the queues are consumed from.
            queues: Declared already.
        """
        kind = self._kind
        if kind is None or not any(map(delays.is_quorum, (*self._siblings, *queues))):
            return
        taking_part = [queue for queue in queues if delays.takes_part(queue)]
        if not taking_part:
            return
        try:
            await asyncio.to_thread(_declare, address, kind, taking_part)
        except TransportError as exc:
            logger.warning(
                "What clients of Celery send for later may not arrive in %s: %s",
                ", ".join(queue.name for queue in taking_part),
                exc,
            )


def _declare(address: Address, kind: delays.QueueType, queues: Sequence[Queue]) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS

    def ask(methods: Iterable[topology.Method]) -> None:
        link.await_all([link.core.request(_CHANNEL, *method) for method in methods], until)

    link: Link
    with errand([address], until) as link:
        delays.declare(kind, queues, ask)
