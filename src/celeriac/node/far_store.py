"""A store that all nodes of the fleet share, and that one of them may not reach for a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from celeriac.errors import TransportError
from celeriac.net.lane import Lane

logger: logging.Logger = logging.getLogger("celery.worker.strategy")

RETRY_SECONDS = 1.0  # after it has failed


class Closable(Protocol):
    """What has a connection."""

    def close(self) -> None:
        """Close it."""
        ...


S = TypeVar("S", bound=Closable)
T = TypeVar("T")


class FarStore(Generic[S]):
    """Calls a store on a thread of its own; says once that it is out of reach, and once that it is back.

    Args:
        connect: Returns the store; called when it is first needed.
        thread: The thread's name.
        away: What the log says when it fails, with ``%s`` for the reason.
        back: What the log says when it answers again.
    """

    def __init__(self, connect: Callable[[], S], thread: str, away: str, back: str) -> None:
        self._connect = connect
        self._lane = Lane(thread)
        self._away = away
        self._back = back
        self._store: S | None = None
        self._failing = False

    async def call(self, use: Callable[[S], T]) -> T:
        """Return what a function of the store returns.

        Raises:
            TransportError: It cannot be reached, or refuses.
        """
        if self._store is None:
            self._store = self._connect()
        store = self._store
        return await self._lane.run(lambda: use(store))

    async def served(self, serve: Callable[[], Awaitable[None]]) -> bool:
        """Do something with it and return True; when that fails say so, wait a moment and return False."""
        try:
            await serve()
        except TransportError as exc:
            self.tell_failure(exc)
            await asyncio.sleep(RETRY_SECONDS)
            return False
        if self._failing:
            self._failing = False
            logger.info(self._back)
        return True

    def tell_failure(self, exc: TransportError) -> None:
        """Say that it is out of reach, unless that was said already."""
        if not self._failing:
            self._failing = True
            logger.warning(self._away, str(exc).rstrip("."))

    async def close(self, before: Callable[[S], object] = lambda store: None) -> None:
        """Close the connection, if there is one.

        Args:
            before: Called with the store first.

        Raises:
            TransportError: That could not be done; the thread has ended nevertheless.
        """
        store = self._store

        def end(store: S) -> None:
            before(store)
            store.close()

        try:
            if store is not None:
                await self._lane.run(lambda: end(store))
        finally:
            self._lane.close(0)
