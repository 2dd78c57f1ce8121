"""Sending by a connection or producer of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celeriac.message import Outgoing
from celery.app._queues import kombu_queue

# Any in this module: objects of kombu, which has no types


class Sender:
    """A `celeriac.ports.Producer` on top of one of kombu's.

    Args:
        producer: kombu's.
    """

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    def send(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """Publish the messages one after the other."""
        for message in batch:
            envelope, props = message.envelope, message.envelope.properties
            self._producer.publish(
                envelope.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
                content_type=envelope.content_type,
                content_encoding=envelope.content_encoding,
                headers=envelope.headers,
                declare=[kombu_queue(message.queue)] if message.queue is not None else [],
                correlation_id=props.correlation_id,
                reply_to=props.reply_to or "",
                delivery_mode=props.delivery_mode,
                priority=props.priority,
                expiration=None if props.expiration is None else float(props.expiration) / 1000,
                **({} if props.timestamp is None else {"timestamp": props.timestamp}) | props.extra,
            )

    async def asend(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """Do the same; kombu blocks the loop meanwhile."""
        self.send(batch, deadline=deadline)

    def close(self) -> None:
        """Leave it open: it is the caller's."""
