"""Custody: where deliveries outlive the time that RabbitMQ gives a consumer (``consumer_timeout``).

RabbitMQ ends the channel of a consumer that holds a message for too long (30 min unless configured), and
hands out anew all that it held: https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, KeysView, Mapping, Sequence
from typing import Any, Final

import msgspec

from celeriac.errors import CodecError, TransportError
from celeriac.message import Delivery, Outgoing
from celeriac.queues import Queue
from celeriac.transports.amqp import frames, topology
from celeriac.transports.amqp.connection import Message
from celeriac.transports.amqp.producer import AmqpProducer

logger: logging.Logger = logging.getLogger(__name__)

CHANNEL: Final = 2  # of its own: what is fetched shall not mix with the order of what is pushed
_GRANTED_SECONDS: Final = 900.0  # the shortest default that RabbitMQ has had
_PARTS: Final = 3  # what is granted is used up to a third before a message is copied
_AT_ONCE: Final = 500  # messages
_SEND_SECONDS: Final = 5.0
_GRANTED: Final = re.compile(r"Timeout value used: (\d+) ms")

# Asks RabbitMQ several things on our channel and returns its answers.
Call = Callable[..., Awaitable[list[Any]]]


class Copy(msgspec.Struct, frozen=True):
    """What stands for a delivery: the same message in a queue that only we know."""

    sent: Outgoing
    tag: int  # on our channel
    since: float  # `time.monotonic`


class Custody:
    """Keeps old deliveries by copies, with which RabbitMQ's clock begins anew.

    1. The copy is sent, confirmed, to a queue of this consumer's own, and fetched from there at once.
    2. Only then is the message let go of; whatever is settled later is the copy.
    3. A copy that nobody holds any more expires, and RabbitMQ puts it back into the message's queue.

    A connection that is lost between the first two leaves both; each is marked as redelivered.

    Args:
        producer: Sends copies, with confirms.
        queues: What is consumed; ``x-consumer-timeout`` (ms) among its arguments is minded.
        call: Asks on our channel.
        write: Writes frames.
    """

    def __init__(
        self, producer: AmqpProducer, queues: Iterable[Queue], call: Call, write: Callable[[bytes], None]
    ) -> None:
        self._producer = producer
        self._call = call
        self._write = write
        self._name = uuid.uuid4().hex
        self._fresh_seconds = min(map(_granted_seconds, queues), default=_GRANTED_SECONDS) / _PARTS
        self.forget(0)

    def forget(self, epoch: int) -> None:
        """Begin with a new connection: what was held through the old one goes back by itself."""
        self._epoch = epoch
        self._copies: dict[int, Copy] = {}  # by the tag that the message had, the oldest first
        self._marks: deque[tuple[float, int]] = deque()  # when which tag was the newest
        self._due = 0  # messages up to this tag are old
        self._not_before = 0.0  # when it is worth trying again

    def __contains__(self, tag: int) -> bool:
        return tag in self._copies

    def __len__(self) -> int:
        return len(self._copies)

    def keys(self) -> KeysView[int]:
        """Return the tags that the messages had for which there are copies."""
        return self._copies.keys()

    def learn(self, refusal: str) -> None:
        """Mind the time that RabbitMQ names when it has ended a channel for a message held too long."""
        if said := _GRANTED.search(refusal):
            self._fresh_seconds = min(self._fresh_seconds, int(said[1]) / 1000 / _PARTS)

    def old(self, outstanding: dict[int, Message]) -> list[Message]:
        """Return which of the messages that were pushed are old.

        Args:
            outstanding: All of them, by their tags, the oldest first.
        """
        now = time.monotonic()
        if outstanding:
            self._marks.append((now, next(reversed(outstanding))))
        while self._marks and self._marks[0][0] <= now - self._fresh_seconds:
            self._due = self._marks.popleft()[1]
        old = itertools.takewhile(lambda item: item[0] <= self._due, outstanding.items())
        return [message for _, message in itertools.islice(old, _AT_ONCE)]

    async def copy(self, old: Sequence[Delivery]) -> dict[int, Copy]:
        """Send and fetch copies of old deliveries, and new ones for old copies.

        Returns:
            What has become safe, by the tag that the message had; to be given to `take`.

        Raises:
            TransportError: The connection is lost.
        """
        now, epoch = time.monotonic(), self._epoch
        if now < self._not_before:
            return {}
        wanted = {delivery.token[1]: self._outgoing(delivery) for delivery in old}
        stale = (
            (tag, one.sent) for tag, one in self._copies.items() if one.since <= now - self._fresh_seconds
        )
        wanted.update(itertools.islice(stale, _AT_ONCE))
        if not wanted:
            return {}
        # One call for each, which the producer writes together: one that cannot be sent spoils no other.
        sent = await asyncio.gather(*map(self._send, wanted.values()))
        safe = {tag: copy for (tag, copy), error in zip(wanted.items(), sent, strict=True) if error is None}
        if len(safe) < len(wanted):
            self._not_before = time.monotonic() + self._fresh_seconds / _PARTS
            logger.warning(
                "%s messages that are held for long cannot be copied: %s RabbitMQ may end the connection for "
                "them (consumer_timeout); trying again in %.0f s.",
                len(wanted) - len(safe),
                next(error for error in sent if error is not None),
                self._fresh_seconds / _PARTS,
            )
        fetched: dict[int, Copy] = {}
        for queue in {copy.routing_key: copy.queue for copy in wanted.values()}.values():
            assert queue is not None
            for message in await self._fetch(queue, len(wanted) + 1):
                self._sort(message, safe, fetched)
        return fetched if self._epoch == epoch else {}

    def take(self, fetched: Mapping[int, Copy], released: Collection[int]) -> None:
        """Let copies stand for their messages from now on.

        Args:
            fetched: What `copy` has returned.
            released: The tags of messages that were let go of for that.
        """
        for tag, copy in fetched.items():
            if tag in self._copies:
                self._write(self.acknowledge([tag]))
            elif tag not in released:  # it was settled meanwhile
                self._write(frames.ack(CHANNEL, copy.tag))
                continue
            self._copies[tag] = copy

    def acknowledge(self, tags: Iterable[int]) -> bytes:
        """Return the frames that acknowledge copies, by the tags that their messages had, and forget them."""
        return b"".join(frames.ack(CHANNEL, self._copies.pop(tag).tag) for tag in tags)

    def give_back(self, tags: Iterable[int]) -> bytes:
        """Return the frames that put copies into the queues of their messages, and forget them."""
        return b"".join(_give_back(self._copies.pop(tag).tag) for tag in list(tags))

    def give_all_back(self) -> bytes:
        """Do so with all copies."""
        return self.give_back(self._copies)

    def _outgoing(self, delivery: Delivery) -> Outgoing:
        return topology.kept_copy(delivery, self._name)

    async def _send(self, copy: Outgoing) -> Exception | None:
        """Return why a copy is not safe; None when it is."""
        try:
            await self._producer.asend([copy], deadline=_SEND_SECONDS)
        except (TransportError, CodecError) as exc:
            return exc
        return None

    async def _fetch(self, queue: Queue, most: int) -> list[Message]:
        """Return what is in a queue of ours; to ask one that is not there would end the channel."""
        fetched: list[Message] = []
        while True:
            answers = await self._call(
                *topology.declarations(queue), *[("basic.get", 0, queue.name, False)] * most
            )
            messages = [answer for answer in answers if isinstance(answer, Message)]
            fetched += messages
            if len(messages) < most:
                return fetched

    def _sort(self, message: Message, safe: Mapping[int, Outgoing], fetched: dict[int, Copy]) -> None:
        """Keep what is safe; of the rest give back what an older connection held, and drop the others."""
        epoch, tag = topology.kept_for(message)
        if epoch != self._epoch:
            self._write(_give_back(message.tag))
        elif tag in safe and tag not in fetched:
            fetched[tag] = Copy(safe[tag], message.tag, time.monotonic())
        else:  # its message is still ours
            self._write(frames.ack(CHANNEL, message.tag))


def _granted_seconds(queue: Queue) -> float:
    """Return how long RabbitMQ lets us hold a message of a queue, at least."""
    said = (queue.arguments.get("x-consumer-timeout"), queue.consumer_arguments.get("x-consumer-timeout"))
    return min([_GRANTED_SECONDS, *(ms / 1000 for ms in said if isinstance(ms, int) and ms > 0)])


def _give_back(tag: int) -> bytes:
    """Return the frame that has RabbitMQ put a copy where its message came from."""
    # Its queue has that one for its dead letters.
    return frames.nack(CHANNEL, tag, requeue=False)
