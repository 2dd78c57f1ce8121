"""Queues and exchanges as values: what a message is sent to and what a worker consumes from."""

from __future__ import annotations

from typing import Any

import msgspec


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """Where RabbitMQ routes from; the other transports emulate the four types.

    ``name`` ``""`` is the anonymous exchange: the routing key is the queue's name.
    """

    name: str = ""
    type: str = "direct"  # direct | topic | fanout | headers
    durable: bool = True
    auto_delete: bool = False
    delivery_mode: int | None = None
    arguments: dict[str, Any] = {}  # Any: the broker's own arguments


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """One more way into a queue, besides its own exchange and routing key."""

    exchange: Exchange
    routing_key: str = ""
    arguments: dict[str, Any] = {}  # Any: the broker's own arguments


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue as it has to be declared: peers that declare it otherwise are refused by RabbitMQ."""

    name: str
    exchange: Exchange = Exchange()
    routing_key: str = ""
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    no_ack: bool = False
    alias: str | None = None
    arguments: dict[str, Any] = {}  # Any: x-max-priority, x-queue-type, x-message-ttl (ms), x-expires (ms), …
    consumer_arguments: dict[str, Any] = {}  # Any: the broker's own arguments
    bindings: tuple[Binding, ...] = ()


def direct_queue(name: str, *, exchange: str | None = None, routing_key: str | None = None) -> Queue:
    """Return the queue that Celery makes for a bare name: name = exchange = routing key, direct, durable."""
    return Queue(
        name=name,
        exchange=Exchange(name=name if exchange is None else exchange),
        routing_key=name if routing_key is None else routing_key,
    )
