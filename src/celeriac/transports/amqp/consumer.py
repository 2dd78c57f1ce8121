"""Consuming: RabbitMQ pushes, the node takes in batches, acknowledgements go out one write per batch."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

from celeriac.errors import BrokerUnreachable, CodecError, TransportError
from celeriac.message import (
    Ack,
    Delivery,
    Outgoing,
    Reject,
    Requeue,
    Start,
    Verdict,
)
from celeriac.ports import ConsumeSpec
from celeriac.queues import Queue
from celeriac.transports.amqp import frames, topology
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.connection import ChannelClosed, Event, Lost, Message, Refused
from celeriac.transports.amqp.custody import CHANNEL as CUSTODY_CHANNEL
from celeriac.transports.amqp.custody import Custody
from celeriac.transports.amqp.delays import QueueType, readdress
from celeriac.transports.amqp.doubts import Copy, Doubts, Token
from celeriac.transports.amqp.landing import Landing
from celeriac.transports.amqp.producer import AmqpProducer
from celeriac.transports.amqp.replaced import Identity, Replaced, identity_of, stands_beside
from celeriac.transports.amqp.sources import Sources
from celeriac.transports.amqp.stream import Stream
from celeriac.transports.amqp.substitute import AT_ONCE, Held, substitute
from celeriac.transports.amqp.unbegun import Unbegun

logger: logging.Logger = logging.getLogger(__name__)

_CHANNEL: Final = 1
_PUBLISH_SECONDS: Final = 5.0  # for dead letters
_NOT_IMPLEMENTED: Final = 540


class AmqpConsumer:
    """Leases messages to one node over a connection of its own.

    1. Connects and has queues consumed from (`sources`); does so again by itself when the connection is lost.
    2. Hands out what they have sent, as far as it is not done already.
    3. Acknowledges: one frame for a run of deliveries from the oldest on, one write for everything.
    4. Publishes dead letters through the transport's producer, and only then lets go of the originals.
    5. Notices that RabbitMQ has forgotten it, which happens when a quorum queue is deleted and made again; as
       that cannot always be seen, it begins anew when such a queue was silent for long, and it holds nothing.
    6. Keeps RabbitMQ from losing patience with what is held for long (`custody`).
    7. Has what began count as outstanding until it ends, which for RabbitMQ ends with its acknowledgement.
    8. Has what Celery's clients send for later arrive (`landing`).

    RabbitMQ's lease is the connection: it takes everything back when that ends or misses two heartbeats.

    Args:
        addresses: One broker, or several of which the first that answers is used.
        spec: What to consume.
        producer: For dead letters.
        delay_queues: See `Landing`.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        spec: ConsumeSpec,
        producer: AmqpProducer,
        delay_queues: QueueType | None = None,
    ) -> None:
        self._addresses = deque(addresses)
        self._producer = producer
        self._node = spec.node
        self._sources = Sources(spec, self._call, self._ask)
        self._landing = Landing(spec, delay_queues)
        self._stream: Stream | None = None
        self._error: TransportError | None = None  # why the last connection ended; told once
        self._closed = False
        self._connecting = asyncio.Lock()
        self._news = asyncio.Event()
        self._lost = asyncio.Event()  # until we are connected again
        self._epoch = 0
        self._replacing = 0  # settlements that wait for copies to be safe
        self._started: set[Token] = set()  # acknowledged at their start, their end still to come
        call = functools.partial(self._call, channel=CUSTODY_CHANNEL)
        self._doubts = Doubts()
        self._unbegun = Unbegun()
        self._replaced = Replaced()
        self._custody = Custody(producer, spec.queues, call, self._write)
        self._renewing = asyncio.Lock()
        self._forget()

    def _forget(self) -> None:
        """Begin with a new connection: what came through the old one is RabbitMQ's again."""
        self._epoch += 1
        self._custody.forget(self._epoch)
        self._sources.forget()
        self._doubts.keep(self._started)
        # By delivery tag, oldest first, not yet taken ones included; custody has others.
        self._outstanding: dict[int, Message] = {}

    # --- receive ---

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """Wait for at least one message and return at most ``limit``. See `celeriac.ports.Consumer`."""
        while True:
            await self._something()
            if taken := self._take(limit):
                return taken

    async def _something(self) -> None:
        """Wait until there is something to take."""
        sources = self._sources
        # A copy that takes the node down before its original is let go of would have left two of it.
        while sources.gone or not sources.turns or self._replacing:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._closed:
                raise TransportError("The consumer is closed.", retryable=False)
            if self._stream is None:
                await self.connect()
            elif sources.gone:  # before anything else: other queues may be busy for hours
                await sources.restore()
            else:
                self._news.clear()
                await self._news.wait()

    def unseen(self) -> Sequence[Delivery]:
        """Return what was sent and not received. See `celeriac.ports.Tethered`."""
        return self._take(len(self._sources.untaken()))

    def _take(self, limit: int) -> list[Delivery]:
        return self._received(self._sources.take(limit))

    def _received(self, messages: Iterable[tuple[Message, str]]) -> list[Delivery]:
        taken: list[Delivery] = []
        for message, queue in messages:
            if self._replaced.is_back(message, queue):
                self._write(self._acknowledge({message.tag}))
            else:
                taken.append(self._read(message, queue))
        return taken

    def _read(self, message: Message, queue: str) -> Delivery:
        delivery = topology.read_delivery(message, queue, self._epoch)
        readdress(delivery, self._sources.find(queue))
        self._unbegun.correct(delivery)
        return delivery

    async def lost(self) -> None:
        """Return as soon as the connection is lost. See `celeriac.ports.Tethered`."""
        await self._lost.wait()

    def came_to_nothing(self, deliveries: Iterable[Delivery]) -> None:
        """Hear what had not begun when the connection was lost. See `celeriac.ports.Tethered`."""
        for delivery in deliveries:
            self._unbegun.note(delivery)

    # --- settle ---

    async def settle(self, verdicts: Sequence[tuple[Delivery, Verdict]]) -> None:
        """Carry out the verdicts in one write. See `celeriac.ports.Consumer`."""
        self._mind_the_begun(verdicts)
        acks: set[int] = set()
        back: list[bytes] = []
        copies: list[Copy] = []
        self._unbegun.forget(delivery for delivery, verdict in verdicts if type(verdict) is not Requeue)
        for delivery, verdict in verdicts:
            token: Token = delivery.token
            kind = type(verdict)
            held = self._holds(token)
            if held and (kind is Ack or kind is Start):
                acks.add(token[1])
            if kind is Start:
                if held:
                    self._started.add(token)
            elif not held and token not in self._started:
                pass  # the connection that it came through is lost: it is RabbitMQ's again
            elif kind is not Ack and (copy := self._substitute(delivery, verdict)) is not None:
                copies.append((delivery, copy))
                acks.discard(token[1])  # not before its copy is safe
            else:
                self._started.discard(token)
                if held and token[1] in self._custody:
                    acks.add(token[1])  # it has no other end: what else may become of it is a copy
                elif held and kind is not Ack:
                    back.append(frames.nack(_CHANNEL, token[1], requeue=_goes_back(verdict)))
                    acks.discard(token[1])
                    del self._outstanding[token[1]]
        if self._stream is not None and (acks or back):
            # What goes back first: one frame acknowledges all older ones that RabbitMQ still takes for ours.
            self._stream.write(b"".join(back) + self._acknowledge(acks))
        if copies:
            await self._replace_all(copies)
        if len(self._custody) < self._sources.allowance.in_custody or self._sources.wants_more():
            await self._mind_custody(len(self._custody))

    def _mind_the_begun(self, verdicts: Sequence[tuple[Delivery, Verdict]]) -> None:
        """Have RabbitMQ send less, before it is told that what has begun is not outstanding any more."""
        allowance = self._sources.allowance
        for delivery, verdict in verdicts:
            if delivery.token[0] == self._epoch:
                begun = type(verdict) is Start and self._holds(delivery.token)
                allowance.note(delivery.token[1], begun=begun)
        if self._stream is not None:
            self._sources.narrow()

    async def _replace_all(self, copies: list[Copy]) -> None:
        self._replacing += 1
        try:
            for start in range(0, len(copies), AT_ONCE):
                await self._replace(copies[start : start + AT_ONCE])
        finally:
            self._replacing -= 1
            self._news.set()

    async def _replace(self, copies: list[Copy]) -> None:
        """Publish what takes the place of deliveries, and let go of those."""
        copies = self._doubts.minded(copies)
        originals = self._originals(copies)
        try:
            await self._producer.asend([copy for _, copy in copies], deadline=_PUBLISH_SECONDS)
        except CodecError as exc:
            await self._replace_each(copies, exc)
            return
        except TransportError as exc:
            if not isinstance(exc, BrokerUnreachable):  # then nothing was sent
                self._doubts.note(copies)
            raise
        self._doubts.forget(copies)
        # Only now are the originals acknowledged: worse to lose than to repeat.
        self._replaced.note(originals)
        self._started.difference_update(delivery.token for delivery, _ in copies)
        self._unbegun.forget(delivery for delivery, _ in copies)
        tags = {delivery.token[1] for delivery, _ in copies if self._holds(delivery.token)}
        if self._stream is not None and tags:
            self._stream.write(self._acknowledge(tags))
            # RabbitMQ answers no acknowledgement; but it answers what comes behind it on the channel.
            with contextlib.suppress(TransportError):  # `receive` tells it
                await self._call(self._sources.allowance.repeat(len(self._sources.queues)))
                self._replaced.forget(originals)

    def _originals(self, copies: list[Copy]) -> list[Identity]:
        """Return what RabbitMQ may hand out once more though the copies in its place are safe."""
        held = [
            (identity_of(self._outstanding[delivery.token[1]], delivery.queue), copy)
            for delivery, copy in copies
            if self._holds(delivery.token) and delivery.token[1] in self._outstanding
        ]
        return [identity for identity, copy in held if stands_beside(copy, identity)]

    async def _replace_each(self, copies: list[Copy], cause: CodecError) -> None:
        """Find the one that cannot be written; the others must not suffer for it."""
        if len(copies) > 1:
            for one in copies:
                await self._replace([one])
            return
        ((delivery, copy),) = copies
        self._started.discard(delivery.token)
        logger.error(
            "A message of queue %s cannot be sent to queue %s: %s %s",
            delivery.queue,
            copy.routing_key,
            cause,
            "It goes back to its own when this worker ends."
            if self._holds(delivery.token)
            else "It is lost.",
        )

    def _substitute(self, delivery: Delivery, verdict: Verdict) -> Outgoing | None:
        held: Held = "not"
        if self._holds(delivery.token):
            held = "kept" if delivery.token[1] in self._custody else "pushed"
        return substitute(delivery, verdict, self._sources.find(delivery.queue), self._node, held)

    def _holds(self, token: Token) -> bool:
        return token[0] == self._epoch and (token[1] in self._outstanding or token[1] in self._custody)

    def _acknowledge(self, tags: set[int]) -> bytes:
        """Return the fewest frames that acknowledge these tags, and forget them."""
        parts = []
        if self._custody:
            kept = [tag for tag in tags if tag in self._custody]
            parts.append(self._custody.acknowledge(kept))
            tags = tags.difference(kept)
        run = last = 0
        for tag in self._outstanding:
            if tag not in tags:
                break
            run, last = run + 1, tag
        if run:
            parts.append(frames.ack(_CHANNEL, last, multiple=run > 1))
        for tag in tags:
            del self._outstanding[tag]
            if tag > last:
                parts.append(frames.ack(_CHANNEL, tag))
        return b"".join(parts)

    async def renew(self) -> None:
        """Connect again after a loss that `receive` has told, and look whether RabbitMQ still knows us.

        Otherwise there is nothing to do: heartbeats keep RabbitMQ's lease, and it takes back by itself what
        dead nodes left.

        Raises:
            BrokerUnreachable: See `connect`.
            TransportError: The connection was lost.
        """
        if self._error is None and not self._closed:
            if self._stream is None:
                await self.connect()
            else:
                await self._mind_the_silent()
                async with self._renewing:
                    await self._mind_the_old()

    async def _mind_the_old(self) -> None:
        """Have copies stand for messages that RabbitMQ would soon end the channel for."""
        old = [
            self._read(message, self._sources.queue_of[message.consumer])
            for message in self._custody.old(self._outstanding)
        ]
        # What cannot be read becomes a dead letter as soon as the node gets round to it.
        fetched = await self._custody.copy([delivery for delivery in old if delivery.defect is None])
        if fetched:
            # RabbitMQ does not count copies, and would send more for what we let go of: first the limit.
            epoch = self._epoch
            await self._mind_custody(len(self._custody.keys() | fetched.keys()))
            if self._epoch == epoch:
                released = fetched.keys() & self._outstanding.keys()
                self._write(self._acknowledge(released))
                self._custody.take(fetched, released)
                self._unbegun.forget(delivery for delivery in old if delivery.token[1] in fetched)
                await self._mind_custody(len(self._custody))

    async def _mind_custody(self, copies: int) -> None:
        """Let RabbitMQ send more when less is in custody, and less when more is."""
        self._sources.allowance.in_custody = copies
        await self._mind_the_limit()

    async def _mind_the_limit(self) -> None:
        if self._stream is not None:
            await self._sources.mind_the_limit()

    async def _mind_the_silent(self) -> None:
        """Consume once more where RabbitMQ has forgotten us.

        It may believe to have sent us some of their messages, which only the connection's end gives back.
        """
        forgotten = await self._sources.forgotten(self._outstanding)
        if not forgotten:
            if self._sources.is_long_silent() and self._is_idle():
                await self._open_anew()
            return
        names = ", ".join(queue.name for queue in self._sources.of(forgotten))
        logger.warning("RabbitMQ sends nothing from %s, which is not empty: consuming anew.", names)
        if self._stream is not None and not self._outstanding and not self._custody:
            self._stream.abort(Lost(f"nothing came from {names}"))
        else:
            await self._sources.begin_anew(forgotten)

    async def _open_anew(self) -> None:
        """Give back what RabbitMQ may believe to have sent us, when we hold nothing, and consume once more.

        A quorum queue that is deleted and made again at once takes our channel for one that consumes, and the
        channel drops what it is sent. Nothing tells: the queue looks empty, and to have a consumer.
        """
        stream = self._stream

        async def close_the_channel() -> None:
            if self._stream is stream and self._is_idle():  # nothing came meanwhile
                await self._call(("channel.close", 200, "", 0, 0))
                if self._stream is stream:
                    self._forget()

        await self._sources.begin_anew(between=close_the_channel)

    def _is_idle(self) -> bool:
        """Return whether nothing of ours would go back, or get lost, with the channel."""
        busy = self._outstanding or self._sources.turns or self._custody or self._replacing
        return not busy and not self._sources.allowance.paused

    # --- what is consumed ---

    def holds(self, delivery: Delivery) -> bool:
        """Return whether it is still ours. See `celeriac.ports.Consumer`."""
        return self._holds(delivery.token)

    async def set_prefetch(self, limit: int) -> None:
        """Change how many deliveries may be outstanding; 0 = no limit."""
        self._sources.allowance.prefetch = limit
        await self._mind_the_limit()

    async def add_queue(self, queue: Queue) -> None:
        """Consume from one more queue, declared first."""
        known = queue.name in self._sources.queues
        self._sources.queues[queue.name] = queue
        if (stream := self._stream) is not None and not known:
            await self._sources.begin([queue])
            await self._landing.prepare(stream.address, [queue])

    async def cancel_queue(self, name: str) -> None:
        """Stop consuming from a queue; what the node has taken stays ours, the rest goes back."""
        if not self._sources.let_go(name) or self._stream is None:
            return
        untaken = await self._sources.cancel(name)
        self._write(self._custody.give_back([each.tag for each in untaken if each.tag in self._custody]))
        back = self._received((each, name) for each in untaken if each.tag in self._outstanding)
        await self.settle([(delivery, Requeue(untouched=True)) for delivery in back])

    async def close(self) -> None:
        """Stop consuming, hand back whatever is outstanding, and close the connection."""
        self._closed = True
        stream = self._stream
        if stream is not None:
            try:
                await self._sources.end()
            except TransportError:
                pass  # it is lost: RabbitMQ has everything back
            else:
                back = frames.nack(_CHANNEL, 0, requeue=True, multiple=True)
                stream.write(back + self._custody.give_all_back())
            await stream.close()
        self._stream = None
        self._forget()
        self._error = None
        self._news.set()

    # --- the connection ---

    async def connect(self) -> None:
        """Connect to the first broker that answers and begin to consume, unless that is so already.

        Raises:
            BrokerUnreachable: Nobody answers, or RabbitMQ refuses us or one of the queues.
        """
        async with self._connecting:
            for left in reversed(range(len(self._addresses))):
                if self._stream is not None:
                    return
                try:
                    await self._connect_to(self._addresses[0])
                except BrokerUnreachable:
                    self._addresses.rotate(-1)
                    if not left:
                        raise

    async def _connect_to(self, address: Address) -> None:
        stream = Stream(address, self._on_events, self._on_end)
        await stream.connect()
        if self._closed:  # meanwhile: nobody would close this one
            await stream.close()
            raise TransportError("The consumer is closed.", retryable=False)
        self._forget()
        self._error = None
        self._lost.clear()
        self._stream = stream
        try:
            await self._sources.begin()
        except BaseException as exc:
            self._stream = None
            await stream.close()
            cause = exc.__cause__
            if isinstance(cause, Refused):
                if cause.code == _NOT_IMPLEMENTED and self._sources.allowance.shared:
                    self._sources.allowance.shared = (
                        False  # a queue is of a kind that knows only limits of its own
                    )
                    return await self._connect_to(address)
                raise address.unreachable(cause) from cause
            if isinstance(exc, TransportError):
                raise BrokerUnreachable(str(exc)) from exc
            raise
        await self._landing.prepare(address, [*self._sources.queues.values()])
        return None

    def _write(self, data: bytes) -> None:
        if self._stream is not None and data:
            self._stream.write(data)

    def _ask(self, *methods: topology.Method) -> None:
        if self._stream is not None:
            self._stream.ask(*methods, channel=_CHANNEL)

    async def _call(self, *methods: topology.Method, channel: int = _CHANNEL) -> list[Any]:
        stream = self._stream
        if stream is None:
            raise TransportError("The connection to RabbitMQ is lost.")
        try:
            return await stream.call(*methods, channel=channel)
        except (Refused, Lost, TimeoutError) as exc:
            if isinstance(exc, TimeoutError):
                stream.abort(exc)
            raise stream.address.failure(exc) from exc

    def _on_events(self, events: list[Event]) -> None:
        for event in self._sources.hear(events, self._outstanding):
            if type(event) is Message:
                self._started.add((self._epoch, event.tag))  # RabbitMQ has forgotten it already
            elif type(event) is ChannelClosed and self._stream is not None:
                self._custody.learn(str(event.error))
                self._stream.abort(event.error)
        self._news.set()

    def _on_end(self, error: Exception) -> None:
        stream, self._stream = self._stream, None
        if stream is not None and not self._closed:
            self._error = stream.address.failure(error)
            self._error.retryable = True  # whatever ended this connection, the next call opens another
            self.came_to_nothing(self._read(message, queue) for message, queue in self._sources.untaken())
            self._lost.set()
            self._forget()
        self._news.set()


def _goes_back(verdict: Verdict) -> bool:
    """Return whether RabbitMQ shall put the message back, or drop it (to its dead-letter exchange)."""
    match verdict:
        case Requeue():
            return True
        case Reject():
            return False
        case _:
            raise TransportError(f"RabbitMQ cannot do {verdict!r}.", retryable=False)
