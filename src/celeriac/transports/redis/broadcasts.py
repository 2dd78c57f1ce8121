"""Queues of fanout exchanges: everybody who listens gets the message, nobody leases it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from celeriac.message import Delivery, Park, Requeue, Start, Verdict
from celeriac.net.redis_link import pack
from celeriac.queues import Queue
from celeriac.transports.exchanges import bindings_of
from celeriac.transports.redis import postmarks
from celeriac.transports.redis.names import Names


class Heard(msgspec.Struct, eq=False):
    """The token of a delivery that came by channel."""

    message: bytes


class Broadcasts:
    """What a consumer hears on channels.

    Duties: 1. know what to subscribe to; 2. turn a publication into deliveries; 3. settle them here, for the
    broker keeps nothing of them: what is requeued or parked waits in this process.

    Args:
        names: The names of channels.
        deliver: Called with each delivery.
    """

    def __init__(self, names: Names, deliver: Callable[[Delivery], None]) -> None:
        self._names = names
        self._deliver = deliver
        self._patterns: dict[bytes, list[str]] = {}  # -> names of our queues
        self._outstanding: set[Heard] = set()
        self._timers: set[asyncio.TimerHandle] = set()

    def __len__(self) -> int:
        """Return how many deliveries are outstanding."""
        return len(self._outstanding)

    def add(self, queue: Queue) -> list[bytes]:
        """Return the patterns to subscribe to for a queue; most queues have none."""
        found = []
        for kind, bound in bindings_of(queue):
            if kind == "fanout":
                # A fanout exchange does not look at routing keys, but publishers put them into the channel.
                channel = self._names.channel(bound.exchange, "")
                for pattern in {channel.encode(), self._names.channel_pattern(bound.exchange, "*").encode()}:
                    self._patterns.setdefault(pattern, []).append(queue.name)
                    found.append(pattern)
        return found

    def cancel(self, name: str) -> list[bytes]:
        """Return the patterns that nobody needs once this queue is cancelled."""
        ended = []
        for pattern, queues in list(self._patterns.items()):
            if name in queues:
                queues.remove(name)
                if not queues:
                    del self._patterns[pattern]
                    ended.append(pattern)
        return ended

    def greeting(self) -> bytes:
        """Return the packed command that subscribes a new connection; it is answered by pushes only."""
        return pack(("PSUBSCRIBE", *self._patterns)) if self._patterns else b""

    def heard(self, push: list[Any]) -> None:  # Any: whatever Redis sends
        """Take in what was published."""
        if push[0] == b"pmessage":
            for name in self._patterns.get(push[1], ()):
                self._hand_over(name, push[3])

    def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """Carry out a verdict, unless it is Start or was settled before."""
        token: Heard = delivery.token
        if token not in self._outstanding or isinstance(verdict, Start):
            return
        self._outstanding.discard(token)
        if isinstance(verdict, Requeue):
            again = token.message
            if not verdict.untouched:
                following = 2 if verdict.willing else delivery.attempt + 1
                again = postmarks.redelivered(again, following)
            self._hand_over(delivery.queue, again)
        elif isinstance(verdict, Park):
            self._hold(delivery.queue, token.message, verdict.until)

    def outstanding(self, delivery: Delivery) -> bool:
        """Whether the delivery came from here and is not settled."""
        return delivery.token in self._outstanding

    def close(self) -> None:
        """Forget what waits here; the broker never had it."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _hand_over(self, queue: str, message: bytes) -> None:
        found = postmarks.opened(message)
        if found.not_before is not None and found.not_before > time.time():
            self._hold(queue, message, found.not_before)
            return
        token = Heard(message)
        self._outstanding.add(token)
        self._deliver(found.delivery(queue, token))

    def _hold(self, queue: str, message: bytes, until: float) -> None:
        def due() -> None:
            self._timers.discard(timer)
            self._hand_over(queue, message)

        timer = asyncio.get_running_loop().call_later(max(until - time.time(), 0.0), due)
        self._timers.add(timer)
