"""How queues and exchanges are declared: exactly as Celery does, or RabbitMQ refuses whoever comes second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from celeriac.message import Envelope, Outgoing
from celeriac.queues import Exchange, Queue

DEAD_SUFFIX: Final = ".dead"
HEADER_REASON: Final = "x-celeriac-dead-reason"
HEADER_TIME: Final = "x-celeriac-dead-time"
HEADER_QUEUE: Final = "x-celeriac-dead-queue"
HEADER_EXCHANGE: Final = "x-celeriac-dead-exchange"
HEADER_ROUTING_KEY: Final = "x-celeriac-dead-routing-key"
HEADER_ATTEMPT: Final = "x-celeriac-attempt"

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


def dead_letter(envelope: Envelope, queue: str, exchange: str, routing_key: str, reason: str) -> Outgoing:
    """Return a dead letter, addressed to the queue of its kind; its headers tell where it came from."""
    headers = {
        **envelope.headers,
        HEADER_REASON: reason,
        HEADER_TIME: time.time(),
        HEADER_QUEUE: queue,
        HEADER_EXCHANGE: exchange,
        HEADER_ROUTING_KEY: routing_key,
    }
    name = queue + DEAD_SUFFIX
    return Outgoing(
        envelope=Envelope(
            headers=headers,
            body=envelope.body,
            content_type=envelope.content_type,
            content_encoding=envelope.content_encoding,
            properties=envelope.properties,
        ),
        routing_key=name,
        queue=Queue(name=name),
    )
