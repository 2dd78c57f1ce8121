"""The broker inside the process: every semantic of the others, nothing to install; made for tests.

Transports with the same URL share one broker (``memory://``, ``memory://other``), across threads and event
loops. It does not reach other processes, and says so instead of losing what they send.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from celeriac.errors import TransportError
from celeriac.message import (
    Ack,
    DeadLetter,
    Delivery,
    Envelope,
    Outgoing,
    Park,
    Reject,
    Requeue,
    Start,
    Verdict,
)
from celeriac.net.url import parse
from celeriac.ports import Caps, ConsumeSpec
from celeriac.queues import Queue
from celeriac.transports.blob import pack, unpack_or_defect
from celeriac.transports.exchanges import Bound, bindings_of, route
from celeriac.transports.terms import Terms, dead_letter_address, terms_of, unroutable

CAPS = Caps(native_delay=True, leases=True, across_processes=False)


class _Message:
    """One message in one queue, whatever state it is in."""

    __slots__ = (
        "blob",
        "exchange",
        "handed",
        "lost",
        "order",
        "queue",
        "redelivered",
        "routing_key",
        "terms",
    )

    def __init__(self, order: int, queue: str, blob: bytes, exchange: str, key: str, terms: Terms) -> None:
        self.order = order
        self.queue = queue
        self.blob = blob
        self.exchange = exchange
        self.routing_key = key
        self.terms = terms
        self.handed = 0
        self.redelivered = False
        self.lost = False


class _Lease:
    """A message in the hands of a consumer; its identity is the fencing token."""

    __slots__ = ("message", "started")

    def __init__(self, message: _Message) -> None:
        self.message = message
        self.started = False


class _Shelf:
    """What one queue holds: ready messages by priority and age, parked ones by the moment they are due."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.ready: list[tuple[int, int, _Message]] = []
        self.parked: list[tuple[float, int, _Message]] = []
        self.dead: deque[tuple[str, bytes]] = deque(maxlen=10_000)
        self.consumers: set[MemoryConsumer] = set()

    def put(self, message: _Message, not_before: float | None = None) -> None:
        if not_before is not None and not_before > time.time():
            heapq.heappush(self.parked, (not_before, message.order, message))
        else:
            heapq.heappush(self.ready, (-message.terms.priority, message.order, message))

    def take(self, now: float) -> _Message | None:
        """Return the next message that is due and has not expired."""
        while self.parked and self.parked[0][0] <= now:
            self.put(heapq.heappop(self.parked)[2])
        while self.ready:
            message = heapq.heappop(self.ready)[2]
            if not message.terms.expired(now):
                return message
        return None


class Broker:
    """The queues, exchanges and leases of one memory URL. Every method is safe for threads."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.RLock()
        self._order = itertools.count(1)
        self._shelves: dict[str, _Shelf] = {}
        self._kinds: dict[str, str] = {}
        self._bound: dict[str, list[Bound]] = {}
        self._owners: set[MemoryConsumer] = set()

    def declare(self, queue: Queue) -> None:
        """Make the queue and its bindings, unless they are there."""
        with self._lock:
            shelf = self._shelves.get(queue.name)
            if shelf is None:
                self._shelves[queue.name] = _Shelf(queue)
            elif shelf.queue == queue:
                return
            else:
                shelf.queue = queue
            for kind, bound in bindings_of(queue):
                self._kinds[bound.exchange] = kind
                known = self._bound.setdefault(bound.exchange, [])
                if bound not in known:
                    known.append(bound)

    def publish(self, batch: Sequence[Outgoing]) -> None:
        """Put the whole batch into its queues, or nothing of it."""
        blobs = [pack(outgoing.envelope) for outgoing in batch]
        with self._lock:
            now = time.time()
            routed: list[tuple[list[str], Outgoing, bytes]] = []
            for outgoing, blob in zip(batch, blobs, strict=True):
                if outgoing.queue is not None:
                    self.declare(outgoing.queue)
                names = self._route(outgoing.exchange, outgoing.routing_key, outgoing.envelope.headers)
                routed.append((names, outgoing, blob))
            touched: dict[str, _Shelf] = {}
            for names, outgoing, blob in routed:
                for name in names:
                    shelf = touched[name] = self._shelf(name)
                    terms = terms_of(outgoing.envelope, shelf.queue.arguments, now)
                    message = _Message(
                        next(self._order), name, blob, outgoing.exchange, outgoing.routing_key, terms
                    )
                    shelf.put(message, outgoing.not_before)
            self._ring(touched.values())

    def lease(self, consumer: MemoryConsumer, limit: int) -> list[Delivery]:
        """Hand out up to ``limit`` messages, one from each queue in turn."""
        with self._lock:
            self._reap()
            if consumer not in self._owners:  # new, or thought dead and back again
                self._owners.add(consumer)
                consumer.expires = time.monotonic() + consumer.spec.lease_seconds
            now = time.time()
            turns = deque(consumer.queues)
            found: list[Delivery] = []
            while turns and len(found) < limit:
                message = self._shelf(turns[0]).take(now)
                if message is None:
                    turns.popleft()
                else:
                    found.append(self._hand_out(consumer, message))
                    turns.rotate(-1)
            consumer.queues.rotate(-1)
            return found

    def settle(self, consumer: MemoryConsumer, verdicts: Sequence[tuple[Delivery, Verdict]]) -> None:
        """Carry out the verdicts of deliveries that the consumer still holds."""
        with self._lock:
            for delivery, verdict in verdicts:
                lease: _Lease = delivery.token
                if lease in consumer.leases:
                    self._settle_one(consumer, lease, verdict)

    def renew(self, consumer: MemoryConsumer) -> None:
        """Extend the consumer's leases and take back what the dead left."""
        with self._lock:
            consumer.expires = time.monotonic() + consumer.spec.lease_seconds
            self._reap()

    def attach(self, consumer: MemoryConsumer, name: str) -> None:
        """Note that a consumer reads a queue."""
        with self._lock:
            self._shelf(name).consumers.add(consumer)

    def detach(self, consumer: MemoryConsumer, name: str) -> None:
        """Note that it does so no more; an auto-delete queue goes with its last consumer."""
        with self._lock:
            shelf = self._shelves.get(name)
            if shelf is None:
                return
            shelf.consumers.discard(consumer)
            if shelf.queue.auto_delete and not shelf.consumers:
                del self._shelves[name]
                for exchange, bound in self._bound.items():
                    self._bound[exchange] = [b for b in bound if b.queue != name]

    def leave(self, consumer: MemoryConsumer) -> None:
        """Take back everything that a consumer holds: unstarted as if untouched, started as lost."""
        with self._lock:
            self._owners.discard(consumer)
            touched = []
            for lease in consumer.leases:
                if not lease.started:
                    lease.message.handed -= 1
                touched.append(self._give_back(lease, died=lease.started))
            consumer.leases.clear()
            self._ring(touched)

    def next_due(self, names: Sequence[str]) -> float | None:
        """Return the moment (epoch seconds) when the first parked message of these queues is due."""
        with self._lock:
            heads = [s.parked[0][0] for name in names if (s := self._shelves.get(name)) and s.parked]
            return min(heads, default=None)

    def purge(self, name: str) -> int:
        """Throw away what waits, parked messages included."""
        with self._lock:
            shelf = self._shelf(name)
            count = len(shelf.ready) + len(shelf.parked)
            shelf.ready.clear()
            shelf.parked.clear()
            return count

    def size(self, name: str) -> int:
        """Return how many messages wait, parked ones included."""
        with self._lock:
            shelf = self._shelves.get(name)
            return len(shelf.ready) + len(shelf.parked) if shelf else 0

    def dead_letters(self, name: str, limit: int) -> list[tuple[str, Envelope]]:
        """Return the newest dead letters of a queue."""
        with self._lock:
            shelf = self._shelves.get(name)
            newest = list(itertools.islice(reversed(shelf.dead), limit)) if shelf else []
        return [(reason, unpack_or_defect(blob)[0]) for reason, blob in newest]

    def put_raw(self, name: str, blob: bytes) -> None:
        """Put bytes into a queue as they are, to see what a worker does with a broken message."""
        with self._lock:
            shelf = self._shelf(name)
            shelf.put(_Message(next(self._order), name, blob, "", name, Terms()))
            self._ring([shelf])

    def _shelf(self, name: str) -> _Shelf:
        shelf = self._shelves.get(name)
        if shelf is None:
            shelf = self._shelves[name] = _Shelf(Queue(name=name))
        return shelf

    # Any: header values are whatever the sender put there
    def _route(self, exchange: str, routing_key: str, headers: Mapping[str, Any]) -> list[str]:
        if not exchange:
            return [routing_key]
        kind = self._kinds.get(exchange)
        names = route(kind or "direct", self._bound.get(exchange, ()), routing_key, headers)
        if not names and kind != "fanout":
            raise unroutable(exchange, routing_key, known=kind is not None)
        return names

    def _hand_out(self, consumer: MemoryConsumer, message: _Message) -> Delivery:
        message.handed += 1
        lease = _Lease(message)
        consumer.leases[lease] = None
        envelope, defect = unpack_or_defect(message.blob)
        return Delivery(
            envelope=envelope,
            queue=message.queue,
            exchange=message.exchange,
            routing_key=message.routing_key,
            redelivered=message.redelivered,
            attempt=message.handed,
            token=lease,
            defect=defect,
            lost=message.lost,
        )

    def _settle_one(self, consumer: MemoryConsumer, lease: _Lease, verdict: Verdict) -> None:
        message = lease.message
        shelf = self._shelf(message.queue)
        if isinstance(verdict, Start):
            lease.started = True
            return
        del consumer.leases[lease]
        match verdict:
            case Ack():
                pass
            case Reject():
                self._reject(message, shelf)
            case Requeue(untouched=True):
                message.handed -= 1
                shelf.put(message)
            case Requeue():
                message.redelivered = True
                message.order = next(self._order)  # behind its equals, or a refusing task would starve them
                shelf.put(message)
            case Park(until=until):
                message.handed -= 1
                shelf.put(message, until)
            case DeadLetter(reason=reason):
                shelf.dead.append((reason, message.blob))
        self._ring([shelf])

    def _reject(self, message: _Message, shelf: _Shelf) -> None:
        address = dead_letter_address(shelf.queue.arguments, message.routing_key)
        if address is None:
            return
        exchange, routing_key = address
        headers = unpack_or_defect(message.blob)[0].headers
        try:
            names = self._route(exchange, routing_key, headers)
        except TransportError:  # nobody is bound there: RabbitMQ drops it as well
            return
        for name in names:
            target = self._shelf(name)
            terms = Terms(priority=message.terms.priority)
            target.put(_Message(next(self._order), name, message.blob, exchange, routing_key, terms))
            self._ring([target])

    def _give_back(self, lease: _Lease, *, died: bool) -> _Shelf:
        message = lease.message
        message.redelivered = message.redelivered or died
        message.lost = message.lost or lease.started
        shelf = self._shelf(message.queue)
        shelf.put(message)
        return shelf

    def _reap(self) -> None:
        now = time.monotonic()
        for owner in [o for o in self._owners if o.expires < now]:
            self._owners.discard(owner)
            self._ring([self._give_back(lease, died=True) for lease in owner.leases])
            owner.leases.clear()

    def _ring(self, shelves: Iterable[_Shelf]) -> None:
        for shelf in shelves:
            for consumer in shelf.consumers:
                consumer.ring()


_brokers: dict[str, Broker] = {}
_brokers_lock = threading.Lock()


def broker_at(url: str) -> Broker:
    """Return the broker of a URL, the same one for the same URL."""
    parts = parse(url)
    name = "/".join(part for part in (parts.host, parts.path) if part)
    with _brokers_lock:
        broker = _brokers.get(name)
        if broker is None or broker.pid != os.getpid():
            broker = _brokers[name] = Broker()
        return broker


class MemoryConsumer:
    """Leases messages of a memory broker to one node.

    Args:
        broker: Where the messages are.
        spec: What to consume.
    """

    def __init__(self, broker: Broker, spec: ConsumeSpec) -> None:
        self.spec = spec
        self.queues: deque[str] = deque()
        self.leases: dict[_Lease, None] = {}
        self.expires = 0.0  # on the monotonic clock
        self._broker = broker
        self._prefetch = spec.prefetch
        self._loop = asyncio.get_running_loop()
        self._bell = asyncio.Event()
        for queue in spec.queues:
            self._add(queue)

    def ring(self) -> None:
        """Wake `receive`; called from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._bell.set)

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """Wait for messages; see `celeriac.ports.Consumer`."""
        while True:
            self._bell.clear()
            room = limit if self._prefetch == 0 else min(limit, self._prefetch - len(self.leases))
            if room > 0 and (found := self._broker.lease(self, room)):
                return found
            await self._wait()

    async def _wait(self) -> None:
        """Wait until something was put, settled or comes due, or it is time to look for dead nodes."""
        seconds = self.spec.lease_seconds
        due = self._broker.next_due(list(self.queues))
        if due is not None:
            seconds = min(seconds, max(0.0, due - time.time()))
        try:
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        except TimeoutError:
            return

    async def settle(self, verdicts: Sequence[tuple[Delivery, Verdict]]) -> None:
        """Carry out the verdicts; see `celeriac.ports.Consumer`."""
        self._broker.settle(self, verdicts)
        self._bell.set()  # there may be room below the prefetch limit now

    async def renew(self) -> None:
        """Extend the leases and take back what dead nodes left."""
        self._broker.renew(self)

    async def set_prefetch(self, limit: int) -> None:
        """Change how many deliveries may be outstanding."""
        self._prefetch = limit
        self._bell.set()

    async def add_queue(self, queue: Queue) -> None:
        """Consume from one more queue."""
        if queue.name not in self.queues:
            self._add(queue)
            self._bell.set()

    async def cancel_queue(self, name: str) -> None:
        """Stop consuming from a queue."""
        if name in self.queues:
            self.queues.remove(name)
            self._broker.detach(self, name)

    async def close(self) -> None:
        """Hand back what was not started."""
        self._broker.leave(self)
        for name in self.queues:
            self._broker.detach(self, name)
        self.queues.clear()

    def _add(self, queue: Queue) -> None:
        self._broker.declare(queue)
        self._broker.attach(self, queue.name)
        self.queues.append(queue.name)


class MemoryProducer:
    """Puts messages into a memory broker.

    Args:
        broker: Where to.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def send(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """Put the batch into its queues; see `celeriac.ports.Producer`."""
        if self._broker.pid != os.getpid():
            raise TransportError(
                "memory:// does not reach other processes: this one was forked from the one that has the "
                "broker. Use sqlite:// or a pool of threads.",
                retryable=False,
            )
        self._broker.publish(batch)

    async def asend(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """Do the same; it never blocks."""
        self.send(batch, deadline=deadline)

    def close(self) -> None:
        """Do nothing: there is no connection."""


class MemoryTransport:
    """The broker inside the process.

    Args:
        url: ``memory://`` or ``memory://name``; the same URL is the same broker.
        options: Ignored.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:  # Any: transport options
        self.caps = CAPS
        self.address = url
        self.broker = broker_at(url)

    def producer(self) -> MemoryProducer:
        """Return a producer."""
        return MemoryProducer(self.broker)

    async def consumer(self, spec: ConsumeSpec) -> MemoryConsumer:
        """Declare the queues and return their consumer."""
        return MemoryConsumer(self.broker, spec)

    def purge(self, queue: str) -> int:
        """Throw away what waits in a queue."""
        return self.broker.purge(queue)

    def size(self, queue: str) -> int:
        """Return how many messages wait in a queue, parked ones included."""
        return self.broker.size(queue)

    def dead_letters(self, queue: str, limit: int = 100) -> Sequence[tuple[str, Envelope]]:
        """Return the newest dead letters of a queue."""
        return self.broker.dead_letters(queue, limit)

    def close(self) -> None:
        """Do nothing: the broker lives as long as the process."""
