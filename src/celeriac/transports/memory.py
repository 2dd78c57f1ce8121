"""The broker inside the process: every semantic of the others, nothing to install; made for tests.

Transports with the same URL share one broker (``memory://``, ``memory://other``), across threads and event
loops. It does not reach other processes, and says so instead of losing what they send.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from celeriac.clock import SystemClock
from celeriac.errors import TransportError
from celeriac.letters import EVERYTHING, Letter, Wanted
from celeriac.message import Delivery, Outgoing, Verdict
from celeriac.ports import Caps, ConsumeSpec
from celeriac.queues import Queue
from celeriac.timetable import Timetable
from celeriac.transports.memory_broker import Broker, Lease, broker_at
from celeriac.transports.memory_bursts import MemoryBursts
from celeriac.transports.memory_fanout import MemoryFanout
from celeriac.transports.memory_locks import MemoryLocks
from celeriac.transports.memory_pauses import MemoryPauses
from celeriac.transports.memory_permits import MemoryPermits
from celeriac.transports.memory_revocations import MemoryRevocations

CAPS = Caps(
    native_delay=True,
    leases=True,
    across_processes=False,
    permits=True,
    revocations=True,
    timetable=True,
    once=True,
    ages=True,
    rounds=True,
)


class MemoryConsumer:
    """Leases messages of a memory broker to one node.

    Args:
        broker: Where the messages are.
        spec: What to consume.
    """

    def __init__(self, broker: Broker, spec: ConsumeSpec) -> None:
        self.spec = spec
        self.queues: deque[str] = deque()
        self.leases: dict[Lease, None] = {}
        self.expires: float = 0.0  # on the monotonic clock
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
            seconds = min(seconds, max(0.0, due - self._broker.clock.time()))
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

    def holds(self, delivery: Delivery) -> bool:
        """Return whether it is still ours; see `celeriac.ports.Consumer`."""
        return delivery.token in self.leases

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


class MemoryGraveyard:
    """The dead letters of a memory broker.

    Args:
        broker: Where they are.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def find(self, queue: str, wanted: Wanted = EVERYTHING, limit: int = 100) -> list[Letter]:
        """See `celeriac.ports.Graveyard`."""
        return self._broker.find(queue, wanted, limit)

    def retry(self, queue: str, ids: Collection[str]) -> list[str]:
        """See `celeriac.ports.Graveyard`."""
        return self._broker.retry(queue, ids)

    def purge(self, queue: str, ids: Collection[str]) -> list[str]:
        """See `celeriac.ports.Graveyard`."""
        return self._broker.forget(queue, ids)


class MemoryTransport:
    """The broker inside the process.

    Args:
        url: ``memory://`` or ``memory://name``; the same URL is the same broker.
        options: ``clock`` (`celeriac.clock.Clock`), for tests; others are ignored.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:  # Any: transport options
        self.caps = CAPS
        self.address = url
        self.broker: Broker = broker_at(url, options.get("clock") or SystemClock())

    def producer(self) -> MemoryProducer:
        """Return a producer."""
        return MemoryProducer(self.broker)

    async def consumer(self, spec: ConsumeSpec) -> MemoryConsumer:
        """Declare the queues and return their consumer."""
        return MemoryConsumer(self.broker, spec)

    def fanout(self) -> MemoryFanout:
        """Return the way to send and hear broadcasts."""
        return MemoryFanout(self.broker.audience, self.broker.pid)

    def purge(self, queue: str) -> int:
        """Throw away what waits in a queue."""
        return self.broker.purge(queue)

    def size(self, queue: str) -> int:
        """Return how many messages wait in a queue, parked ones included."""
        return self.broker.size(queue)

    def ready(self, queue: str) -> int:
        """See `celeriac.ports.Transport`."""
        return self.broker.ready(queue)

    def oldest(self, queue: str) -> float | None:
        """See `celeriac.ports.Transport`."""
        return self.broker.oldest(queue)

    def parked(self, queue: str, limit: int) -> list[tuple[Delivery, float]]:
        """See `celeriac.ports.Transport`."""
        return self.broker.parked(queue, limit)

    def reap(self) -> int:
        """Take over what dead nodes held; see `celeriac.ports.Transport`."""
        return self.broker.reap()

    def graveyard(self) -> MemoryGraveyard:
        """Return the dead letters."""
        return MemoryGraveyard(self.broker)

    def permits(self) -> MemoryPermits:
        """Return the permits of all nodes of the process."""
        return self.broker.permits

    def locks(self) -> MemoryLocks:
        """Return the locks of all clients and nodes of the process."""
        return self.broker.locks

    def bursts(self) -> MemoryBursts:
        """Return the bursts of all clients and nodes of the process."""
        return self.broker.bursts

    def revocations(self) -> MemoryRevocations:
        """Return what the nodes of the process shall not run."""
        return self.broker.revocations

    def timetable(self, owner: str) -> Timetable:
        """Return the timetable of all schedulers of the process."""
        return self.broker.timetables.of(owner)

    def pauses(self) -> MemoryPauses:
        """Return what remembers paused queues."""
        return self.broker.pauses

    def whereabouts(self, task_id: str) -> str | None:
        """Return None: it is for tests."""
        return None

    def close(self) -> None:
        """Do nothing: the broker lives as long as the process."""
