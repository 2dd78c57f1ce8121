"""Broadcasts over RabbitMQ: exchanges and queues that live as long as somebody listens."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from celeriac.errors import BrokerUnreachable, DecodeError, TransportError
from celeriac.message import Broadcast, Envelope, Outgoing, Props
from celeriac.queues import Exchange, Queue
from celeriac.transports.amqp import frames, topology
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.connection import Cancelled, ChannelClosed, Event, Lost, Message, Refused
from celeriac.transports.amqp.producer import AmqpProducer
from celeriac.transports.amqp.stream import Stream
from celeriac.transports.amqp.tables import decode_properties, encode_properties
from celeriac.transports.subscription import Inbox

_PUBLISH: Final = 1  # the channel that is published on; each subscription has one of its own
_NOT_FOUND: Final = 404
_MOST_UNSENT: Final = 1 << 20  # bytes that wait for RabbitMQ to read them


class AmqpFanout:
    """Publishes and listens as kombu does: nothing is acknowledged, and on the loop nothing confirmed.

    All that happens on the loop shares one connection. What is refused on the channel of a subscription
    (another program has declared its queue otherwise) does not disturb the others.

    Args:
        addresses: One broker, or several of which the first that answers is used.
        producer: For those who publish without a loop.
    """

    def __init__(self, addresses: Sequence[Address], producer: AmqpProducer) -> None:
        self._addresses = deque(addresses)
        self._producer = producer
        self._declared: set[str] = set()  # exchanges, through the producer
        self._declared_by = os.getpid()
        self._stream: Stream | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting = asyncio.Lock()
        self._exchanges: set[str] = set()  # declared on this stream
        self._channels = itertools.count(_PUBLISH + 1)
        self._inboxes: dict[int, Inbox] = {}  # by channel

    # --- sending ---------------------------------------------------------------------------------------

    def publish(self, batch: Sequence[Broadcast], *, deadline: float) -> None:
        """See `celeriac.ports.Fanout`."""
        until = time.monotonic() + deadline
        try:
            self._publish(batch, until)
        except TransportError as exc:
            self._declared.clear()
            cause = exc.__cause__
            if not isinstance(cause, Refused) or cause.code != _NOT_FOUND:
                raise
            self._publish(batch, until)  # a RabbitMQ that began anew has none of these exchanges

    def _publish(self, batch: Sequence[Broadcast], until: float) -> None:
        if self._declared_by != os.getpid():
            self._declared, self._declared_by = set(), os.getpid()
        for exchange in _exchanges(batch, self._declared):
            for method in topology.exchange_declarations(exchange):
                try:
                    self._producer.ask(*method, deadline=until - time.monotonic())
                except Refused as exc:
                    raise self._addresses[0].failure(exc) from exc
            self._declared.add(exchange.name)
        messages = [
            Outgoing(
                envelope=broadcast.envelope,
                exchange=broadcast.exchange.name,
                routing_key=broadcast.routing_key,
            )
            for broadcast in batch
        ]
        self._producer.send(messages, deadline=max(0.0, until - time.monotonic()))

    async def apublish(self, batch: Sequence[Broadcast], *, deadline: float) -> None:
        """See `celeriac.ports.Fanout`; not confirmed: what is on its way when RabbitMQ dies is lost."""
        try:
            async with asyncio.timeout(deadline):
                stream = await self._connected()
                methods = [
                    method
                    for exchange in _exchanges(batch, self._exchanges)
                    for method in topology.exchange_declarations(exchange)
                ]
                if methods:
                    await stream.call(*methods, channel=_PUBLISH)
                    self._exchanges.update(broadcast.exchange.name for broadcast in batch)
        except TimeoutError as exc:
            raise TransportError(f"RabbitMQ at {self._shown} did not answer in {deadline:g} s.") from exc
        except (Refused, Lost) as exc:
            raise self._addresses[0].failure(exc) from exc
        if stream.unsent > _MOST_UNSENT:  # it takes nothing: an alarm, or it hangs
            why = stream.core.blocked or "it does not read"
            raise TransportError(f"RabbitMQ at {self._shown} takes no messages at the moment: {why}.")
        parts = []
        for broadcast in batch:
            name, key, envelope = broadcast.exchange.name, broadcast.routing_key, broadcast.envelope
            parts.append(frames.method(_PUBLISH, "basic.publish", 0, name, key, False, False))
            properties = encode_properties(envelope)
            parts.append(frames.content(_PUBLISH, properties, envelope.body, stream.core.frame_max))
        stream.write(b"".join(parts))

    # --- listening -------------------------------------------------------------------------------------

    async def subscribe(self, queue: Queue) -> Inbox:
        """See `celeriac.ports.Fanout`."""
        stream = await self._connected()
        channel = next(self._channels)
        inbox = self._inboxes[channel] = Inbox(queue, self._leave)
        consume: topology.Method = (
            "basic.consume",
            0,
            queue.name,
            str(channel),
            False,
            True,
            False,
            False,
            {},
        )
        try:
            await stream.call(*topology.declarations(queue), consume, channel=channel)
        except (Refused, Lost) as exc:
            self._inboxes.pop(channel, None)
            raise stream.address.failure(exc) from exc
        except BaseException as exc:
            self._inboxes.pop(channel, None)
            # RabbitMQ may still begin to deliver to a consumer that nobody listens to.
            stream.abort(Lost("the wait for a subscription was given up"))
            if isinstance(exc, TimeoutError):
                raise stream.address.failure(exc) from exc
            raise
        return inbox

    async def _leave(self, inbox: Inbox) -> None:
        for channel, other in list(self._inboxes.items()):
            if other is inbox:
                del self._inboxes[channel]
                if self._stream is not None and self._stream.core.error is None:
                    self._stream.ask(("basic.cancel", str(channel), False), channel=channel)

    def _on_events(self, events: list[Event]) -> None:
        for event in events:
            inbox = self._inboxes.get(event.channel)
            if isinstance(event, Message) and inbox is not None:
                inbox.put(_read(event, inbox.queue.exchange))
            elif isinstance(event, Cancelled) and inbox is not None:
                inbox.fail(TransportError(f"Somebody has deleted the queue {inbox.queue.name!r}."))
            elif isinstance(event, ChannelClosed):
                if event.channel == _PUBLISH:
                    self._exchanges.clear()  # most likely somebody has deleted one
                elif inbox is not None:
                    inbox.fail(self._addresses[0].failure(event.error))

    # --- the connection --------------------------------------------------------------------------------

    @property
    def _shown(self) -> str:
        return self._addresses[0].shown

    async def _connected(self) -> Stream:
        """Return the connection of the running loop.

        Raises:
            BrokerUnreachable: Nobody answers, or RabbitMQ refuses us.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._connecting, self._stream, self._inboxes = loop, asyncio.Lock(), None, {}
        async with self._connecting:
            for left in reversed(range(len(self._addresses))):
                if self._stream is not None:
                    return self._stream
                stream = Stream(self._addresses[0], self._on_events, self._on_end)
                try:
                    await stream.connect()
                except BrokerUnreachable:
                    self._addresses.rotate(-1)
                    if not left:
                        raise
                else:
                    self._exchanges.clear()
                    self._stream = stream
        assert self._stream is not None
        return self._stream

    def _on_end(self, error: Exception) -> None:
        stream, self._stream = self._stream, None
        inboxes, self._inboxes = self._inboxes, {}
        for inbox in inboxes.values():
            failure = (stream.address if stream is not None else self._addresses[0]).failure(error)
            failure.retryable = True  # whatever ended this connection, another may be had
            inbox.fail(failure)

    # --- the end ---------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """See `celeriac.ports.Fanout`."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    def close(self) -> None:
        """See `celeriac.ports.Fanout`; the producer is the transport's."""


def _exchanges(batch: Sequence[Broadcast], known: set[str]) -> list[Exchange]:
    found = {broadcast.exchange.name: broadcast.exchange for broadcast in batch}
    return [exchange for name, exchange in found.items() if name not in known]


def _read(message: Message, exchange: Exchange) -> Broadcast:
    try:
        envelope, defect = decode_properties(message.properties, message.body), None
    except DecodeError as exc:
        envelope, defect = Envelope(headers={}, body=message.body, properties=Props()), str(exc)
    return Broadcast(envelope=envelope, exchange=exchange, routing_key=message.routing_key, defect=defect)
