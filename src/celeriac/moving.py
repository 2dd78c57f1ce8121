"""Looking at waiting messages, and taking them to another queue or broker.

Both lease the messages as a worker does, so that no worker runs meanwhile what is looked at or moved, and
hand back untouched what shall stay. What is moved is acknowledged where it was only when it is safe where it
goes: a crash in between leaves it at both places, at none never.
"""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from celeriac.message import Ack, Delivery, Outgoing, Requeue
from celeriac.ports import Consumer, ConsumeSpec, Transport
from celeriac.queues import Queue

_AT_ONCE: Final = 100  # messages of one round
_PATIENCE_SECONDS: Final = 2.0  # how long to wait for messages that the broker counted a moment ago
_SEND_SECONDS: Final = 30.0


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """What shall go where."""

    source: Transport
    queue: Queue
    target: Transport
    to: Queue
    names: frozenset[str] = frozenset()  # of tasks; empty: all
    limit: int | None = None  # messages at most
    keep: bool = False  # whether they stay where they are too


async def peek(transport: Transport, queue: Queue, limit: int) -> list[Delivery]:
    """Return the first messages that a worker would get, and leave them where they are.

    RabbitMQ marks them as redelivered.

    Args:
        transport: The broker.
        queue: The queue, as it is to be declared.
        limit: How many at most.

    Raises:
        TransportError: The broker cannot be reached, or refuses.
    """
    count = min(limit, transport.ready(queue.name))
    if count <= 0:
        return []
    consumer = await transport.consumer(_terms(queue, count))
    try:
        found: list[Delivery] = []
        while len(found) < count and (more := await _next(consumer, count - len(found))):
            found += more
        await consumer.settle([(delivery, Requeue(untouched=True)) for delivery in found])
    finally:
        await consumer.close()
    return found


async def carry_out(move: Move, tell: Callable[[Delivery], None] = lambda _: None) -> int:
    """Move messages that wait now; those that wait for their time, or cannot be read, stay.

    Args:
        move: What shall go where.
        tell: Called with each message when it has arrived.

    Returns:
        How many arrived.

    Raises:
        TransportError: A broker cannot be reached, or refuses; what has arrived by then was told.
    """
    waiting = move.source.ready(move.queue.name)
    limit = waiting if move.limit is None else move.limit
    if min(waiting, limit) <= 0:
        return 0
    consumer = await move.source.consumer(_terms(move.queue, _AT_ONCE))
    moved, seen, staying = 0, 0, list[Delivery]()
    try:
        while moved < limit and seen < waiting:
            batch = await _next(consumer, min(_AT_ONCE, waiting - seen, limit - moved))
            if not batch:
                break
            seen += len(batch)
            going = [delivery for delivery in batch if _wanted(delivery, move)]
            await _send(move, going)
            moved += len(going)
            if not move.keep:
                await consumer.settle([(delivery, Ack()) for delivery in going])
            for delivery in going:
                tell(delivery)
            staying += batch if move.keep else [delivery for delivery in batch if delivery not in going]
            await consumer.set_prefetch(_AT_ONCE + len(staying))
            await consumer.renew()
        await consumer.settle([(delivery, Requeue(untouched=True)) for delivery in staying])
    finally:
        await consumer.close()
    return moved


async def _send(move: Move, going: Sequence[Delivery]) -> None:
    batch = []
    for delivery in going:
        envelope = delivery.envelope
        if envelope.properties.delivery_tag is None:  # Redis wants one
            properties = msgspec.structs.replace(envelope.properties, delivery_tag=str(uuid.uuid4()))
            envelope = msgspec.structs.replace(envelope, properties=properties)
        batch.append(Outgoing(envelope=envelope, routing_key=move.to.name, queue=move.to))
    if batch:
        producer = move.target.producer()
        try:
            await producer.asend(batch, deadline=_SEND_SECONDS)
        finally:
            producer.close()


def _wanted(delivery: Delivery, move: Move) -> bool:
    """Return whether it goes; a message of a dead node that had begun is for a worker to tell."""
    if delivery.lost or delivery.defect is not None:
        return False
    return not move.names or delivery.envelope.headers.get("task") in move.names


def _terms(queue: Queue, prefetch: int) -> ConsumeSpec:
    node = f"visitor-{uuid.uuid4().hex[:8]}@{socket.gethostname()}"
    return ConsumeSpec(queues=(queue,), node=node, prefetch=prefetch)


async def _next(consumer: Consumer, limit: int) -> Sequence[Delivery]:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await consumer.receive(limit)
    except TimeoutError:
        return []  # a worker was faster
