"""The queues, exchanges and leases of the memory transport."""

from __future__ import annotations

import heapq
import itertools
import math
import os
import threading
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from celeriac import ages
from celeriac.clock import Clock
from celeriac.errors import TransportError
from celeriac.forklock import ForkLock
from celeriac.letters import MOST_LETTERS, Letter, Wanted, matches
from celeriac.message import (
    Ack,
    DeadLetter,
    Delivery,
    Outgoing,
    Park,
    Reject,
    Requeue,
    Start,
    Verdict,
)
from celeriac.net.url import parse
from celeriac.ports import ConsumeSpec
from celeriac.queues import Queue
from celeriac.rounds import FAIR_KEY_HEADER, fair_key
from celeriac.transports.blob import pack, unpack_or_defect
from celeriac.transports.exchanges import Bound, bindings_of, route
from celeriac.transports.memory_bursts import MemoryBursts
from celeriac.transports.memory_fanout import Audience
from celeriac.transports.memory_locks import MemoryLocks
from celeriac.transports.memory_pauses import MemoryPauses
from celeriac.transports.memory_permits import MemoryPermits
from celeriac.transports.memory_revocations import MemoryRevocations
from celeriac.transports.memory_shelf import Buried, Message, Shelf
from celeriac.transports.memory_timetable import MemoryTimetables
from celeriac.transports.terms import Terms, dead_letter_address, terms_of, unroutable


class Holder(Protocol):
    """A consumer as the broker sees it: what it reads, what it holds and until when."""

    spec: ConsumeSpec
    queues: deque[str]
    leases: dict[Lease, None]
    expires: float  # on the monotonic clock

    def ring(self) -> None:
        """Wake it; called from any thread."""
        ...


class Lease:
    """A message in the hands of a consumer; its identity is the fencing token."""

    __slots__ = ("message", "started")

    def __init__(self, message: Message) -> None:
        self.message: Message = message
        self.started: bool = False


class Broker:
    """The queues, exchanges and leases of one memory URL. Every method is safe for threads.

    Args:
        clock: What tells when leases end and parked messages are due.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock: Clock = clock
        self.pid: int = os.getpid()
        self._lock = threading.RLock()
        self._order = itertools.count(1)
        self._shelves: dict[str, Shelf] = {}
        self._kinds: dict[str, str] = {}
        self._bound: dict[str, list[Bound]] = {}
        self._owners: set[Holder] = set()
        self.audience: Audience = Audience()
        self.permits: MemoryPermits = MemoryPermits(clock)
        self.locks: MemoryLocks = MemoryLocks(clock)
        self.bursts: MemoryBursts = MemoryBursts(clock)
        self.revocations: MemoryRevocations = MemoryRevocations(clock)
        self.timetables: MemoryTimetables = MemoryTimetables()
        self._sent_once: dict[str, float] = {}
        self.pauses: MemoryPauses = MemoryPauses()

    def declare(self, queue: Queue) -> None:
        """Make the queue and its bindings, unless they are there."""
        with self._lock:
            shelf = self._shelves.get(queue.name)
            if shelf is None:
                self._shelves[queue.name] = Shelf(queue, self.clock)
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
            now = self.clock.time()
            routed: list[tuple[list[str], Outgoing, bytes]] = []
            for outgoing, blob in zip(batch, blobs, strict=True):
                if outgoing.queue is not None:
                    self.declare(outgoing.queue)
                names = self._route(outgoing.exchange, outgoing.routing_key, outgoing.envelope.headers)
                routed.append((names, outgoing, blob))
            touched: dict[str, Shelf] = {}
            for names, outgoing, blob in routed:
                once = outgoing.once
                if once is not None:
                    if once.number <= self._sent_once.get(once.row, -math.inf):
                        continue
                    self._sent_once[once.row] = once.number
                for name in names:
                    shelf = touched[name] = self._shelf(name)
                    terms = terms_of(outgoing.envelope, shelf.queue.arguments, now)
                    message = Message(
                        next(self._order), name, blob, outgoing.exchange, outgoing.routing_key, terms
                    )
                    if FAIR_KEY_HEADER in outgoing.envelope.headers:
                        message.key = fair_key(outgoing.envelope.headers)
                    shelf.put(message, outgoing.not_before)
            self._ring(touched.values())

    def lease(self, consumer: Holder, limit: int) -> list[Delivery]:
        """Hand out up to ``limit`` messages, one from each queue in turn."""
        with self._lock:
            self._reap()
            if consumer not in self._owners:  # new, or thought dead and back again
                self._owners.add(consumer)
                consumer.expires = self.clock.monotonic() + consumer.spec.lease_seconds
            now = self.clock.time()
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

    def settle(self, consumer: Holder, verdicts: Sequence[tuple[Delivery, Verdict]]) -> None:
        """Carry out the verdicts of deliveries that the consumer still holds."""
        with self._lock:
            for delivery, verdict in verdicts:
                lease: Lease = delivery.token
                if lease in consumer.leases:
                    self._settle_one(consumer, lease, verdict)

    def renew(self, consumer: Holder) -> None:
        """Extend the consumer's leases and take back what the dead left."""
        with self._lock:
            consumer.expires = self.clock.monotonic() + consumer.spec.lease_seconds
            self._reap()

    def attach(self, consumer: Holder, name: str) -> None:
        """Note that a consumer reads a queue."""
        with self._lock:
            self._shelf(name).consumers.add(consumer)

    def detach(self, consumer: Holder, name: str) -> None:
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

    def leave(self, consumer: Holder) -> None:
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
            return self._shelf(name).clear()

    def size(self, name: str) -> int:
        """Return how many messages wait, parked ones included."""
        with self._lock:
            shelf = self._shelves.get(name)
            return shelf.ready() + len(shelf.parked) if shelf else 0

    def ready(self, name: str) -> int:
        """Return how many messages anybody may receive now."""
        with self._lock:
            shelf = self._shelves.get(name)
            return shelf.ready() if shelf else 0

    def oldest(self, name: str) -> float | None:
        """Return since when the message waits that has waited longest of the ready ones."""
        with self._lock:
            shelf = self._shelves.get(name)
            first = shelf.oldest(ages.MOST_LOOKED_AT) if shelf else []
            found = ((unpack_or_defect(message.blob)[0], None) for message in first)
            return ages.oldest(found, self.clock.time())

    def parked(self, name: str, limit: int) -> list[tuple[Delivery, float]]:
        """Return what waits for its time, the first ones first."""
        with self._lock:
            shelf = self._shelves.get(name)
            first = heapq.nsmallest(limit, shelf.parked) if shelf else []
            return [(_delivery(message, None), due) for due, _, message in first]

    def find(self, name: str, wanted: Wanted, limit: int) -> list[Letter]:
        """Return the newest dead letters of a queue among those that are wanted."""
        with self._lock:
            shelf = self._shelves.get(name)
            buried = list(reversed(shelf.dead)) if shelf else []
        letters = (_letter(one) for one in buried)
        return list(itertools.islice((one for one in letters if matches(one, wanted)), limit))

    def retry(self, name: str, ids: Collection[str]) -> list[str]:
        """Put dead letters back into line, as they first came."""
        with self._lock:
            found = self._exhume(name, ids)
            shelf = self._shelf(name)
            for message in found:
                terms = Terms(priority=message.terms.priority)
                again = Message(
                    next(self._order), name, message.blob, message.exchange, message.routing_key, terms
                )
                again.key = message.key
                shelf.put(again)
            self._ring([shelf])
        return [str(message.order) for message in found]

    def forget(self, name: str, ids: Collection[str]) -> list[str]:
        """Remove dead letters for good."""
        with self._lock:
            return [str(message.order) for message in self._exhume(name, ids)]

    def _exhume(self, name: str, ids: Collection[str]) -> list[Message]:
        shelf = self._shelves.get(name)
        found = [one for one in shelf.dead if str(one.message.order) in ids] if shelf else []
        if shelf and found:
            kept = [one for one in shelf.dead if str(one.message.order) not in ids]
            shelf.dead = deque(kept, maxlen=MOST_LETTERS)
        return [one.message for one in found]

    def put_raw(self, name: str, blob: bytes) -> None:
        """Put bytes into a queue as they are, to see what a worker does with a broken message."""
        with self._lock:
            shelf = self._shelf(name)
            shelf.put(Message(next(self._order), name, blob, "", name, Terms()))
            self._ring([shelf])

    def _shelf(self, name: str) -> Shelf:
        shelf = self._shelves.get(name)
        if shelf is None:
            shelf = self._shelves[name] = Shelf(Queue(name=name), self.clock)
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

    def _hand_out(self, consumer: Holder, message: Message) -> Delivery:
        message.handed += 1
        lease = Lease(message)
        consumer.leases[lease] = None
        return _delivery(message, lease)

    def _settle_one(self, consumer: Holder, lease: Lease, verdict: Verdict) -> None:
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
                shelf.put_back(message)
            case Requeue(willing=willing):
                message.redelivered = True
                if willing:
                    message.handed = 1
                message.order = next(self._order)  # behind its equals, or a refusing task would starve them
                shelf.put(message)
            case Park(until=until):
                message.handed -= 1
                shelf.put(message, until)
            case DeadLetter():
                shelf.dead.append(Buried(message, verdict, self.clock.time(), consumer.spec.node))
        self._ring([shelf])

    def _reject(self, message: Message, shelf: Shelf) -> None:
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
            target.put(Message(next(self._order), name, message.blob, exchange, routing_key, terms))
            self._ring([target])

    def _give_back(self, lease: Lease, *, died: bool) -> Shelf:
        message = lease.message
        message.redelivered = message.redelivered or died
        message.lost = message.lost or lease.started
        shelf = self._shelf(message.queue)
        shelf.put_back(message)
        return shelf

    def reap(self) -> int:
        """Take back what the dead left and return how many messages that were."""
        with self._lock:
            return self._reap()

    def _reap(self) -> int:
        now, count = self.clock.monotonic(), 0
        for owner in [o for o in self._owners if o.expires < now]:
            self._owners.discard(owner)
            count += len(owner.leases)
            self._ring([self._give_back(lease, died=True) for lease in owner.leases])
            owner.leases.clear()
        return count

    def _ring(self, shelves: Iterable[Shelf]) -> None:
        for shelf in shelves:
            for consumer in shelf.consumers:
                consumer.ring()


def _delivery(message: Message, lease: Lease | None) -> Delivery:
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


def _letter(buried: Buried) -> Letter:
    message = buried.message
    return Letter(
        id=str(message.order),
        queue=message.queue,
        kind=buried.verdict.kind,
        reason=buried.verdict.reason,
        at=buried.at,
        node=buried.node,
        attempt=message.handed,
        exchange=message.exchange,
        routing_key=message.routing_key,
        envelope=unpack_or_defect(message.blob)[0],
    )


_brokers: dict[str, Broker] = {}
_brokers_lock = ForkLock()


def broker_at(url: str, clock: Clock) -> Broker:
    """Return the broker of a URL, the same one for the same URL, made with this clock when it is new."""
    parts = parse(url)
    name = "/".join(part for part in (parts.host, parts.path) if part)
    with _brokers_lock:
        broker = _brokers.get(name)
        if broker is None or broker.pid != os.getpid():
            broker = _brokers[name] = Broker(clock)
        return broker
