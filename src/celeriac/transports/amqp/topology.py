"""How queues are declared, and what our own headers say.

Queues and exchanges are declared exactly as Celery does, or RabbitMQ refuses whoever comes second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from celeriac.errors import DecodeError
from celeriac.message import Delivery, Envelope, Outgoing, Props
from celeriac.queues import Exchange, Queue
from celeriac.transports.amqp.connection import Message
from celeriac.transports.amqp.tables import decode_properties

DEAD_SUFFIX: Final = ".dead"
HEADER_REASON: Final = "x-celeriac-reason"  # why it is a dead letter
HEADER_TIME: Final = "x-celeriac-time"  # since when, in seconds since the epoch
HEADER_QUEUE: Final = "x-celeriac-queue"
HEADER_EXCHANGE: Final = "x-celeriac-exchange"
HEADER_ROUTING_KEY: Final = "x-celeriac-routing-key"
HEADER_ATTEMPT: Final = "x-celeriac-attempt"  # how many times a message has been delivered before

Method = tuple[Any, ...]  # a name of `frames.METHODS` and its arguments


def declarations(queue: Queue) -> Iterator[Method]:
    """Yield the methods that declare a queue, its exchange and its bindings."""
    yield from _exchange(queue.exchange)
    yield (
        "queue.declare",
        0,
        queue.name,
        False,  # passive
        queue.durable,
        queue.exclusive,
        queue.auto_delete,
        False,  # nowait
        queue.arguments,
    )
    if queue.exchange.name:
        yield _bind(queue.name, queue.exchange, queue.routing_key, {})
    for binding in queue.bindings:
        yield from _exchange(binding.exchange)
        yield _bind(queue.name, binding.exchange, binding.routing_key, binding.arguments)


def _exchange(exchange: Exchange) -> Iterator[Method]:
    if exchange.name and not exchange.name.startswith("amq."):  # those the broker has by itself
        yield (
            "exchange.declare",
            0,
            exchange.name,
            exchange.type,
            False,  # passive
            exchange.durable,
            exchange.auto_delete,
            False,  # internal
            False,  # nowait
            exchange.arguments,
        )


def _bind(queue: str, exchange: Exchange, routing_key: str, arguments: dict[str, Any]) -> Method:
    return ("queue.bind", 0, queue, exchange.name, routing_key, False, arguments)


def look_at_queue(name: str) -> Method:
    """Return the method that asks for a queue without making it; refused with 404 when there is none."""
    return ("queue.declare", 0, name, True, False, False, False, False, {})


def look_at_exchange(name: str) -> Method:
    """Return the method that asks for an exchange without making it; refused with 404 when there is none."""
    return ("exchange.declare", 0, name, "direct", True, False, False, False, False, {})


def dead_letter(delivery: Delivery, reason: str) -> Outgoing:
    """Return a dead letter, addressed to the queue of its kind; its headers tell where it came from."""
    name = delivery.queue + DEAD_SUFFIX
    headers = {HEADER_REASON: reason, HEADER_TIME: time.time(), HEADER_QUEUE: delivery.queue}
    return Outgoing(envelope=_marked(delivery, headers), routing_key=name, queue=Queue(name=name))


def once_more(delivery: Delivery, queue: Queue | None, *, before: int) -> Outgoing:
    """Return a delivery once more, for its queue's end; a header has the count of those before."""
    headers = {HEADER_ATTEMPT: before}
    return Outgoing(envelope=_marked(delivery, headers), routing_key=delivery.queue, queue=queue)


def _marked(delivery: Delivery, headers: dict[str, Any]) -> Envelope:
    origin = {HEADER_EXCHANGE: delivery.exchange, HEADER_ROUTING_KEY: delivery.routing_key}
    return msgspec.structs.replace(
        delivery.envelope, headers={**delivery.envelope.headers, **headers, **origin}
    )


def read_delivery(message: Message, queue: str, epoch: int) -> Delivery:
    """Return the delivery in a message; one that cannot be read has a defect.

    Args:
        message: As it arrived.
        queue: Where it was.
        epoch: Which connection it came through; with its tag there that is the delivery's token.
    """
    defect = None
    try:
        envelope = decode_properties(message.properties, message.body)
    except DecodeError as exc:
        defect = str(exc)
        envelope = Envelope(headers={}, body=message.body, properties=Props())
    headers = envelope.headers
    exchange, routing_key = message.exchange, message.routing_key
    attempt = 2 if message.redelivered else 1
    counted = headers.pop("x-delivery-count", None)  # quorum queues count by themselves
    if isinstance(counted, int):
        attempt = counted + 1
    before = headers.pop(HEADER_ATTEMPT, None)  # it has been sent once more by us, see `once_more`
    if isinstance(before, int):
        attempt += before
        exchange = str(headers.pop(HEADER_EXCHANGE, exchange))
        routing_key = str(headers.pop(HEADER_ROUTING_KEY, routing_key))
    return Delivery(
        envelope=envelope,
        queue=queue,
        exchange=exchange,
        routing_key=routing_key,
        redelivered=attempt > 1,
        attempt=attempt,
        token=(epoch, message.tag),
        defect=defect,
    )
