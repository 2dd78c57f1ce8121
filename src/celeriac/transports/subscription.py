"""What a subscription to broadcasts is on every transport: an inbox with a limit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from celeriac.errors import TransportError
from celeriac.message import Broadcast
from celeriac.queues import Queue

MOST_WAITING: Final = 10_000  # broadcasts that nobody has taken yet


class Inbox:
    """Keeps what a transport hears until it is taken, `celeriac.ports.Subscription`.

    Args:
        queue: What is listened to.
        leave: Called when the subscription is closed.
    """

    def __init__(self, queue: Queue, leave: Callable[[Inbox], Awaitable[None]]) -> None:
        self.queue = queue
        self.missed: int = 0
        self.error: TransportError | None = None
        self._leave = leave
        self._waiting: deque[Broadcast] = deque()
        self._news = asyncio.Event()
        self._closed = False

    def put(self, broadcast: Broadcast) -> None:
        """Add what was heard; on the loop."""
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self.missed += 1
        self._waiting.append(broadcast)
        self._news.set()

    def fail(self, error: TransportError) -> None:
        """Note that nothing more will be heard."""
        self.error = self.error or error
        self._news.set()

    async def next(self) -> Broadcast:
        """See `celeriac.ports.Subscription`."""
        while not self._waiting:
            if self.error is not None:
                raise self.error
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    async def close(self) -> None:
        """See `celeriac.ports.Subscription`."""
        if not self._closed:
            self._closed = True
            self.fail(TransportError("The subscription is closed.", retryable=False))
            await self._leave(self)
