"""Broadcasts inside the process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence

from celeriac.errors import TransportError
from celeriac.message import Broadcast
from celeriac.queues import Queue
from celeriac.transports.blob import pack, unpack_or_defect
from celeriac.transports.exchanges import Bound, route
from celeriac.transports.subscription import Inbox


class Audience:
    """Who listens at one memory broker, on whichever loop; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inboxes: dict[Inbox, asyncio.AbstractEventLoop] = {}

    def join(self, inbox: Inbox) -> None:
        """Let an inbox of the running loop hear."""
        with self._lock:
            self._inboxes[inbox] = asyncio.get_running_loop()

    def leave(self, inbox: Inbox) -> None:
        """Let it hear no longer."""
        with self._lock:
            self._inboxes.pop(inbox, None)

    def tell(self, broadcast: Broadcast) -> int:
        """Put a broadcast into every inbox that it is for, and return how many these are."""
        count = 0
        with self._lock:
            for inbox, loop in list(self._inboxes.items()):
                if loop.is_closed():
                    del self._inboxes[inbox]
                elif is_for(inbox.queue, broadcast):
                    loop.call_soon_threadsafe(inbox.put, copied(broadcast))
                    count += 1
        return count


class MemoryFanout:
    """Sends and hears broadcasts of a memory broker, `celeriac.ports.Fanout`.

    Args:
        audience: Who listens there.
        pid: The process that has the broker.
    """

    def __init__(self, audience: Audience, pid: int) -> None:
        self._audience = audience
        self._pid = pid
        self._inboxes: set[Inbox] = set()

    def publish(self, batch: Sequence[Broadcast], *, deadline: float) -> int:
        """See `celeriac.ports.Fanout`."""
        if self._pid != os.getpid():
            raise TransportError(
                "memory:// does not reach other processes: this one was forked from the one that has the "
                "broker.",
                retryable=False,
            )
        return sum(self._audience.tell(broadcast) for broadcast in batch)

    async def apublish(self, batch: Sequence[Broadcast], *, deadline: float) -> int:
        """See `celeriac.ports.Fanout`; it never blocks."""
        return self.publish(batch, deadline=deadline)

    async def subscribe(self, queue: Queue) -> Inbox:
        """See `celeriac.ports.Fanout`."""
        inbox = Inbox(queue, self._leave)
        self._inboxes.add(inbox)
        self._audience.join(inbox)
        return inbox

    async def _leave(self, inbox: Inbox) -> None:
        self._inboxes.discard(inbox)
        self._audience.leave(inbox)

    async def aclose(self) -> None:
        """See `celeriac.ports.Fanout`."""
        for inbox in list(self._inboxes):
            await inbox.close()

    def close(self) -> None:
        """See `celeriac.ports.Fanout`."""


def is_for(queue: Queue, broadcast: Broadcast) -> bool:
    """Return whether a queue of broadcasts gets one."""
    if queue.exchange.name != broadcast.exchange.name:
        return False
    bound = Bound(exchange=queue.exchange.name, queue=queue.name, routing_key=queue.routing_key)
    return bool(route(queue.exchange.type, [bound], broadcast.routing_key, broadcast.envelope.headers))


def copied(broadcast: Broadcast) -> Broadcast:
    """Return a copy that shares nothing with what was sent, as from any other broker."""
    envelope, defect = unpack_or_defect(pack(broadcast.envelope))
    return Broadcast(
        envelope=envelope,
        exchange=broadcast.exchange,
        routing_key=broadcast.routing_key,
        defect=defect,
    )
