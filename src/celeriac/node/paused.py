"""Paused queues as a node sees them: it lets go of them, and takes them up again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

import msgspec

from celeriac.errors import TransportError
from celeriac.net.lane import Lane
from celeriac.pauses import Pauses
from celeriac.ports import Consumer, ConsumeSpec
from celeriac.queues import Queue

logger: logging.Logger = logging.getLogger("celery.worker.consumer.consumer")

HEARING_SECONDS = 5.0  # between looks of a node that is told of changes, should it miss that


class PausedQueues:
    """Keeps a node from what somebody has paused for all workers.

    1. before anything is consumed, leave out what is paused
    2. when it hears that something was changed, and now and then, look again
    3. let go of a queue that was paused, and of what was fetched from it and has not begun; what runs, ends
    4. consume again from one that was resumed

    Args:
        store: Remembers what is paused.
        queues: What is consumed, by name; what is paused is taken out.
        consumer: Returns the node's consumer.
        let_go: Called when a queue was paused: what waits here of those in `held` shall go back.
    """

    def __init__(
        self,
        store: Pauses,
        queues: dict[str, Queue],
        consumer: Callable[[], Consumer],
        let_go: Callable[[], None],
    ) -> None:
        self.held: dict[str, Queue] = {}  # what is not consumed as long as it is paused
        self.hears: bool = False  # whether somebody calls `wake` when something was changed
        self._store = store
        self._queues = queues
        self._consumer = consumer
        self._let_go = let_go
        self._lane = Lane("celeriac-paused")
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._refused = False

    async def narrow(self, spec: ConsumeSpec) -> ConsumeSpec:
        """Return what to consume at first: all that is not paused.

        Raises:
            TransportError: The broker cannot be asked now; another attempt may do.
        """
        wanted = {queue.name: queue for queue in spec.queues}
        paused = await self._among(wanted)
        for name, queue in wanted.items():
            if name in paused:
                self._queues.pop(name, None)
                self.held[name] = queue
                _tell_paused(name)
            else:
                self.held.pop(name, None)
                self._queues.setdefault(name, queue)
        return msgspec.structs.replace(
            spec, queues=tuple(queue for queue in spec.queues if queue.name not in paused)
        )

    def wake(self) -> None:
        """Have it looked at soon what is paused; on the loop."""
        self._changed.set()

    async def look(self) -> None:
        """Look at what is paused now and act on it.

        Raises:
            TransportError: The broker cannot be asked.
        """
        async with self._turn:
            paused = await self._among({*self._queues, *self.held})
            for name in paused & self._queues.keys():
                await self._hold(name)
            for name in self.held.keys() - paused:
                await self._release(name)

    async def open(self) -> None:
        """There is nothing to get ready: `narrow` has looked."""

    async def run(self) -> None:
        """Look now and then until cancelled."""
        seconds = max(self._store.look_seconds, HEARING_SECONDS if self.hears else 0.0)
        try:
            while True:
                try:
                    async with asyncio.timeout(seconds):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                self._changed.clear()
                try:
                    await self.look()
                except TransportError as exc:
                    logger.debug("It is not known now which queues are paused: %s", exc)
        finally:
            self._lane.close(timeout_seconds=0)
            self._store.close()

    async def add(self, queue: Queue) -> None:
        """Consume from one more queue, unless it is paused: then as soon as it is not.

        Raises:
            TransportError: The broker cannot be reached.
        """
        async with self._turn:
            if queue.name in await self._among({queue.name}):
                self.held[queue.name] = queue
                _tell_paused(queue.name)
                return
            await self._consumer().add_queue(queue)
            self._queues[queue.name] = queue

    async def _hold(self, name: str) -> None:
        await self._consumer().cancel_queue(name)
        # From here on what the consumer had fetched already is handed back when it comes.
        self.held[name] = self._queues.pop(name)
        self._let_go()
        _tell_paused(name)

    async def _release(self, name: str) -> None:
        queue = self.held.pop(name)  # first: what comes at once is to be taken
        try:
            await self._consumer().add_queue(queue)
        except BaseException:
            self.held[name] = queue
            raise
        self._queues[name] = queue
        logger.info("Queue %s was resumed.", name)

    async def _among(self, names: Collection[str]) -> set[str]:
        try:
            return await self._lane.run(self._store.among, names)
        except TransportError as exc:
            if exc.retryable:
                raise
            if not self._refused:
                self._refused = True
                logger.warning("The broker does not say which queues are paused, so none is: %s", exc)
            return set()


def _tell_paused(name: str) -> None:
    logger.warning("Queue %s is paused: nothing is taken from it until it is resumed.", name)
