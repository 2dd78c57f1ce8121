"""How queues are declared, and what our own headers say.

Queues and exchanges are declared exactly as Celery does, or RabbitMQ refuses whoever comes second.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from celeriac.errors import DecodeError
from celeriac.letters import MOST_LETTERS, Letter
from celeriac.message import DeadLetter, Delivery, Envelope, Outgoing, Props
from celeriac.queues import Exchange, Queue
from celeriac.transports.amqp.connection import Message
from celeriac.transports.amqp.tables import decode_properties

DEAD_SUFFIX: Final = ".dead"
HEADER_REASON: Final = "x-celeriac-reason"  # why it is a dead letter
HEADER_KIND: Final = "x-celeriac-kind"
HEADER_NODE: Final = "x-celeriac-node"  # who gave it up
HEADER_DELIVERIES: Final = "x-celeriac-deliveries"  # how many there had been by then
HEADER_TIME: Final = "x-celeriac-time"  # since when, in seconds since the epoch
HEADER_QUEUE: Final = "x-celeriac-queue"
HEADER_EXCHANGE: Final = "x-celeriac-exchange"
HEADER_ROUTING_KEY: Final = "x-celeriac-routing-key"
HEADER_ATTEMPT: Final = "x-celeriac-attempt"  # how many times a message has been delivered before
HEADER_KEPT: Final = "x-celeriac-kept"  # the token of the delivery that a copy stands for, see `custody`

_KEPT_MS: Final = 10_000  # for a copy to be fetched; and the most that its return can be late
_KEPT_QUEUE_MS: Final = 86_400_000  # without being used

_OF_LETTERS: Final = (
    HEADER_REASON,
    HEADER_KIND,
    HEADER_NODE,
    HEADER_DELIVERIES,
    HEADER_TIME,
    HEADER_QUEUE,
    HEADER_EXCHANGE,
    HEADER_ROUTING_KEY,
)

Method = tuple[Any, ...]  # a name of `frames.METHODS` and its arguments


def declarations(queue: Queue) -> Iterator[Method]:
    """Yield the methods that declare a queue, its exchange and its bindings."""
    yield from exchange_declarations(queue.exchange)
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
        yield bind_queue(queue.name, queue.exchange.name, queue.routing_key)
    for binding in queue.bindings:
        yield from exchange_declarations(binding.exchange)
        yield bind_queue(queue.name, binding.exchange.name, binding.routing_key, binding.arguments)


def exchange_declarations(exchange: Exchange) -> Iterator[Method]:
    """Yield the method that declares an exchange; nothing for one that is always there."""
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


def bind_queue(
    queue: str, exchange: str, routing_key: str, arguments: dict[str, Any] | None = None
) -> Method:
    """Return the method that has a queue get what an exchange has for a routing key."""
    return ("queue.bind", 0, queue, exchange, routing_key, False, arguments or {})


def bind_exchange(exchange: str, source: str, routing_key: str) -> Method:
    """Return the method that has an exchange get what another one has for a routing key."""
    return ("exchange.bind", 0, exchange, source, routing_key, False, {})


def look_at_queue(name: str) -> Method:
    """Return the method that asks for a queue without making it; refused with 404 when there is none."""
    return ("queue.declare", 0, name, True, False, False, False, False, {})


def exclusive_queue(name: str) -> Method:
    """Return the method that makes a queue of one connection, which goes with it; others get 405."""
    return ("queue.declare", 0, name, False, False, True, True, False, {})


def look_at_exchange(name: str) -> Method:
    """Return the method that asks for an exchange without making it; refused with 404 when there is none."""
    return ("exchange.declare", 0, name, "direct", True, False, False, False, False, {})


def dead_queue(queue: str) -> Queue:
    """Return the queue that keeps the dead letters of another.

    A classic one, whatever the virtual host's default: a quorum queue throws away what was looked at twenty
    times. RabbitMQ drops the oldest when there are too many.
    """
    arguments = {"x-queue-type": "classic", "x-max-length": MOST_LETTERS}
    return Queue(name=queue + DEAD_SUFFIX, arguments=arguments)


def dead_letter(delivery: Delivery, verdict: DeadLetter, node: str) -> Outgoing:
    """Return a dead letter, addressed to the queue of its kind; its headers tell where it came from."""
    headers = {
        HEADER_REASON: verdict.reason,
        HEADER_KIND: verdict.kind,
        HEADER_NODE: node,
        HEADER_DELIVERIES: delivery.attempt,
        HEADER_TIME: time.time(),
        HEADER_QUEUE: delivery.queue,
    }
    queue = dead_queue(delivery.queue)
    envelope = _marked(delivery, headers)
    # Kept until somebody looks, however short-lived the message was.
    properties = msgspec.structs.replace(envelope.properties, expiration=None)
    envelope = msgspec.structs.replace(envelope, properties=properties)
    return Outgoing(envelope=envelope, routing_key=queue.name, queue=queue)


def read_letter(message: Message, queue: str) -> Letter:
    """Return the dead letter in a message of a queue of dead letters; its envelope is the one first sent."""
    id_ = hashlib.sha256(message.properties + message.body).hexdigest()[:16]
    try:
        envelope = decode_properties(message.properties, message.body)
    except DecodeError as exc:
        envelope = Envelope(headers={}, body=message.body, properties=Props())
        return Letter(id=id_, queue=queue, kind="undecodable", reason=str(exc), envelope=envelope)
    said = {name: envelope.headers.pop(name, None) for name in _OF_LETTERS}
    attempt, at = said[HEADER_DELIVERIES], said[HEADER_TIME]
    return Letter(
        id=id_,
        queue=queue,
        kind=str(said[HEADER_KIND] or ""),
        reason=str(said[HEADER_REASON] or ""),
        at=at if isinstance(at, float) else 0.0,
        node=str(said[HEADER_NODE] or ""),
        attempt=attempt if isinstance(attempt, int) else 0,
        exchange=str(said[HEADER_EXCHANGE] or ""),
        routing_key=str(said[HEADER_ROUTING_KEY] or ""),
        envelope=envelope,
    )


def once_more(delivery: Delivery, queue: Queue | None, *, before: int) -> Outgoing:
    """Return a delivery once more, for its queue's end; a header has the count of those before."""
    headers = {HEADER_ATTEMPT: before}
    return Outgoing(envelope=_marked(delivery, headers), routing_key=delivery.queue, queue=queue)


def refused(delivery: Delivery, queue: Queue) -> Outgoing | None:
    """Return what RabbitMQ would make of a refused message, as far as the queue's arguments tell."""
    exchange = queue.arguments.get("x-dead-letter-exchange")
    if not isinstance(exchange, str):
        return None
    key = str(queue.arguments.get("x-dead-letter-routing-key", delivery.routing_key))
    return Outgoing(envelope=delivery.envelope, exchange=exchange, routing_key=key)


def kept_copy(delivery: Delivery, owner: str) -> Outgoing:
    """Return the copy of a delivery, for a queue that puts it into the delivery's when nobody holds it.

    That is a classic queue: it lets go of what has expired when that is safe in the other queue.

    Args:
        delivery: What it stands for.
        owner: Makes the queue's name one that nobody else uses.
    """
    queue = Queue(
        name=f"{delivery.queue}.kept.{owner}",
        arguments={
            "x-queue-type": "classic",
            "x-message-ttl": _KEPT_MS,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": delivery.queue,
            "x-expires": _KEPT_QUEUE_MS,
        },
    )
    epoch, tag = delivery.token
    envelope = _marked(delivery, {HEADER_ATTEMPT: delivery.attempt, HEADER_KEPT: f"{epoch}.{tag}"})
    properties = msgspec.structs.replace(envelope.properties, expiration=None)
    envelope = msgspec.structs.replace(envelope, properties=properties)
    return Outgoing(envelope=envelope, routing_key=queue.name, queue=queue)


def kept_for(message: Message) -> tuple[int, int]:
    """Return the token of the delivery that a message was made for by `kept_copy`; zeros when it was not."""
    try:
        said = decode_properties(message.properties, b"").headers.get(HEADER_KEPT)
        epoch, tag = str(said).split(".")
        return int(epoch), int(tag)
    except (DecodeError, ValueError):
        return 0, 0


def identifying(message: Message) -> tuple[object, object, object]:
    """Return a message's task id, which retry it is, and how often it came before it was sent anew.

    Where a header is none that could be compared, or cannot be read, there is None.
    """
    try:
        headers = decode_properties(message.properties, b"").headers
    except DecodeError:
        headers = {}
    id_, retries, before = headers.get("id"), headers.get("retries"), headers.get(HEADER_ATTEMPT)
    return (
        id_ if isinstance(id_, str) else None,
        retries if isinstance(retries, int) else None,
        before if isinstance(before, int) else None,
    )


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
    uncounted = message.redelivered and not isinstance(counted, int)
    if isinstance(counted, int):
        attempt = counted + 1
    headers.pop(HEADER_KEPT, None)
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
        # What was sent once more may be there twice, when its sender was in doubt: both have to tell.
        redelivered=attempt > 1 or isinstance(before, int),
        attempt=attempt,
        token=(epoch, message.tag),
        defect=defect,
        uncounted=uncounted,
    )
