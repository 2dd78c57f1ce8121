"""Celery's delayed delivery: RabbitMQ keeps a message for as many seconds as its routing key says in binary.

Such a message goes to the exchange ``celery_delayed_27``, with 28 binary digits before its routing key.
Each level from 27 down to 0 has an exchange and a queue. A digit of 1 leads into the queue, where the
message waits for 2^level seconds before it goes to the exchange below; with a 0 it goes there at once. From
level 0 it goes to ``celery_delayed_delivery``, bound to which is the exchange of each queue that takes part.

Names, arguments and bindings are what Celery 5.6 declares: RabbitMQ refuses whoever comes second with others.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from celeriac.message import Delivery, Outgoing
from celeriac.queues import Exchange, Queue
from celeriac.transports.amqp import topology
from celeriac.transports.amqp.connection import Refused
from celeriac.transports.exchanges import bindings_of, topic_matches

logger: logging.Logger = logging.getLogger(__name__)

QueueType = Literal["quorum", "classic"]

_LEVELS: Final = 28
_TOP: Final = f"celery_delayed_{_LEVELS - 1}"
_END: Final = Exchange(name="celery_delayed_delivery", type="topic")
_MOST_SECONDS: Final = 2**_LEVELS - 1  # eight and a half years; a worker holds what is due later still
_LONGEST_KEY: Final = 255 - 2 * _LEVELS  # bytes, with the digits before it
_DIGITS: Final = re.compile(rf"(?:(?:[01]\.){{{_LEVELS}}})+")  # Celery 5.6 puts more before them at a retry
_NAME: Final = "celery_delayed_"  # Celery 5.7 may have a prefix before it
_NOT_FOUND: Final = 404
_MADE_OTHERWISE: Final = 406


class Delays:
    """What one publishing connection knows of the delayed delivery.

    1. Has RabbitMQ know the way of a queue's messages before the first of them is sent to wait.
    2. Tells that way.

    It is for quorum queues behind a topic exchange, as with Celery, and for routing keys of one word. All
    other messages are held by the worker that gets them, and so are all where RabbitMQ refuses the exchanges.

    Args:
        kind: Of the queues in which messages wait; None: no message is sent to wait.
    """

    def __init__(self, kind: QueueType | None) -> None:
        self._kind = kind
        self._known: set[str] = set()  # names of queues whose messages have a way

    def forget(self) -> None:
        """Declare everything anew: somebody may have deleted it."""
        self._known.clear()

    def lacking(self, batch: Sequence[Outgoing]) -> dict[str, Queue]:
        """Return the queues whose messages are to wait and have no way yet."""
        if self._kind is None:
            return {}
        return {
            queue.name: queue
            for outgoing in batch
            if outgoing.not_before is not None
            and (queue := outgoing.queue) is not None
            and queue.name not in self._known
            and is_quorum(queue)
            and takes_part(queue)
        }

    def make(self, queues: Mapping[str, Queue], ask: Callable[[Iterable[topology.Method]], Any]) -> None:
        """Declare the way of queues' messages; the levels only when nobody has, for they take RabbitMQ long.

        Args:
            queues: Declared already.
            ask: Asks RabbitMQ several things in one round trip; raises `Refused`, and what else it likes.
        """
        assert self._kind is not None
        try:
            try:
                ask([topology.look_at_exchange(_TOP), *_bindings_of_all(queues.values())])
            except Refused as exc:
                if exc.code != _NOT_FOUND:
                    raise
                declare(self._kind, queues.values(), ask)
        except Refused as exc:
            self._kind = None
            logger.warning(
                "RabbitMQ refuses the exchanges and queues celery_delayed_* of delayed delivery (%s): what "
                "is sent for later is held by the worker that gets it. The user needs the permission to "
                "configure, write and read them.",
                exc,
            )
        else:
            self._known.update(queues)

    def may_come_by(self, exchange: str, queue: Queue) -> bool:
        """Return whether messages of a queue were sent to this exchange to wait."""
        return exchange == _TOP and queue.name in self._known

    def again(self, queue: Queue) -> Iterator[topology.Method]:
        """Yield the methods that declare the way of a queue's messages once more, if they have one."""
        if self._kind is not None and queue.name in self._known:
            yield from levels(self._kind)
            yield from bindings(queue)

    def way(self, outgoing: Outgoing, now: float) -> tuple[str, str] | None:
        """Return the exchange and the routing key by which a message goes that is to wait.

        RabbitMQ keeps it for the whole seconds that are left, and the worker for the rest.

        Args:
            outgoing: The message.
            now: Epoch seconds.

        Returns:
            None when it goes to its queue at once.
        """
        queue, due, key = outgoing.queue, outgoing.not_before, outgoing.routing_key
        if queue is None or due is None or queue.name not in self._known:
            return None
        # With Celery's bindings a queue gets all that ends like its key: `bulk.mail` would go to `mail` too.
        if "." in key or len(key.encode()) > _LONGEST_KEY or not _arrives(queue, outgoing):
            return None
        seconds = int(min(due - now, _MOST_SECONDS))
        return (_TOP, routing_key(seconds, key)) if seconds >= 1 else None


def is_quorum(queue: Queue) -> bool:
    """Return whether a queue is a quorum queue."""
    return queue.arguments.get("x-queue-type") == "quorum"


def takes_part(queue: Queue) -> bool:
    """Return whether messages that have waited can get into a queue: a direct exchange wants the bare key."""
    return any(True for _ in _patterns(queue))


def declare(
    kind: QueueType, queues: Iterable[Queue], ask: Callable[[Iterable[topology.Method]], Any]
) -> None:
    """Declare the levels, and have what has waited arrive in queues.

    Levels that others have made with queues of another type do as well.

    Args:
        kind: Of the levels' queues.
        queues: Declared already.
        ask: Asks RabbitMQ several things in one round trip.

    Raises:
        Refused: RabbitMQ does.
    """
    bound = _bindings_of_all(queues)
    try:
        ask([*levels(kind), *bound])
    except Refused as exc:
        if exc.code != _MADE_OTHERWISE:
            raise
        ask([topology.look_at_exchange(_TOP), *bound])


def levels(kind: QueueType) -> Iterator[topology.Method]:
    """Yield the methods that declare all levels, the last one first: what is half made has no way in."""
    yield from topology.exchange_declarations(_END)
    below = _END.name
    for number in range(_LEVELS):
        level = _level(number, kind, below)
        yield from topology.declarations(level)
        name = level.exchange.name
        yield topology.bind_exchange(below, name, f"{_any(number)}0.#")
        below = name


def bindings(queue: Queue) -> Iterator[topology.Method]:
    """Yield the methods by which what has waited arrives in a queue."""
    for exchange, key in _patterns(queue):
        yield from topology.exchange_declarations(_END)
        yield topology.bind_exchange(exchange, _END.name, f"#.{key}")
        yield topology.bind_queue(queue.name, exchange, f"#.{key}")


def routing_key(seconds: int, key: str) -> str:
    """Return the routing key of a message that is to wait; 5 s are ``0.0. … .1.0.1.`` and its own one."""
    return f"{'.'.join(f'{seconds:0{_LEVELS}b}')}.{key}"


def readdress(delivery: Delivery, queue: Queue | None) -> None:
    """Give a delivery that has waited the address that it was sent for, as retries go there.

    Args:
        delivery: Changed in place.
        queue: Where it arrived, as far as we know it.
    """
    if _NAME in delivery.exchange and (digits := _DIGITS.match(delivery.routing_key)):
        delivery.routing_key = delivery.routing_key[digits.end() :]
        if queue is not None:
            delivery.exchange = queue.exchange.name


def _bindings_of_all(queues: Iterable[Queue]) -> list[topology.Method]:
    return [method for queue in queues for method in bindings(queue)]


def _level(number: int, kind: QueueType, below: str) -> Queue:
    name = f"{_NAME}{number}"
    arguments: dict[str, Any] = {  # Any: the broker's own arguments
        "x-queue-type": kind,
        "x-overflow": "reject-publish",
        "x-message-ttl": 2**number * 1000,
        "x-dead-letter-exchange": below,
    }
    if kind == "quorum":
        arguments["x-dead-letter-strategy"] = "at-least-once"
    exchange = Exchange(name=name, type="topic")
    return Queue(name=name, exchange=exchange, routing_key=f"{_any(number)}1.#", arguments=arguments)


def _any(number: int) -> str:
    """Return the pattern of the digits before that of a level."""
    return "*." * (_LEVELS - 1 - number)


def _patterns(queue: Queue) -> Iterator[tuple[str, str]]:
    """Yield the exchanges from which a queue gets messages with digits before their keys, and those keys."""
    for kind, bound in bindings_of(queue):
        if kind != "direct" and bound.routing_key:
            yield bound.exchange, bound.routing_key


def _arrives(queue: Queue, outgoing: Outgoing) -> bool:
    """Return whether a message gets to its queue by what `bindings` declares."""
    return any(
        exchange == outgoing.exchange and topic_matches(pattern, outgoing.routing_key)
        for exchange, pattern in _patterns(queue)
    )
