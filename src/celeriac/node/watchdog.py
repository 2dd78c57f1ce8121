"""The watchdog: a worker that takes nothing although there is something to take shall not live on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from celeriac.errors import CeleriacError, TransportError
from celeriac.node.link import Link
from celeriac.node.receive import Receiver
from celeriac.queues import Queue

logger: logging.Logger = logging.getLogger(__name__)

_LOOKS = 3  # in the time that it has; all of them have to find the same


class Stuck(CeleriacError):
    """Raised when the node receives nothing although it has room and its queues are not empty."""


class Watchdog:
    """Ends a node whose receiver hangs, for whoever supervises the worker to start it again.

    It has to wait for the broker (a full node does not), with one call, all the time, and every look has to
    find a message in one of its queues that anybody may receive. Of a queue with a single active consumer
    another worker may be that one, so those do not count.

    Args:
        link: To the broker.
        receiver: The one to watch.
        queues: What is consumed, by name, at any time.
        seconds: How long it may hang.
    """

    def __init__(self, link: Link, receiver: Receiver, queues: Mapping[str, Queue], seconds: float) -> None:
        self._link = link
        self._receiver = receiver
        self._queues = queues
        self._pause_seconds = seconds / _LOOKS
        self.found: str | None = None  # what it ends the node for

    async def open(self) -> None:
        """There is nothing to get ready."""

    async def run(self) -> None:
        """Watch until cancelled.

        Raises:
            Stuck: See the class.
        """
        call, finds = 0, 0
        while True:
            await asyncio.sleep(self._pause_seconds)
            same = self._receiver.waits_with == call != 0
            call = self._receiver.waits_with
            full = await self._full_queues() if call else []
            finds = (finds + 1 if same else 1) if full and self._receiver.waits_with == call else 0
            if finds > _LOOKS:
                where = f"{', '.join(full)} at {self._link.transport.address}"
                self.found = (
                    f"Nothing was received for {self._pause_seconds * _LOOKS:g} s although there was room, "
                    f"and {where} is not empty. This worker ends: start it again. "
                    "(worker_watchdog_seconds says how long it may hang; 0 turns this off.)"
                )
                raise Stuck(self.found)

    async def _full_queues(self) -> list[str]:
        """Return the queues with something to receive; none when the broker cannot be asked."""
        try:
            return await asyncio.to_thread(self._look)
        except TransportError as exc:
            logger.info("The queues could not be looked at: %s", exc)
            return []

    def _look(self) -> list[str]:
        return [
            name
            for name, queue in list(self._queues.items())
            if not queue.arguments.get("x-single-active-consumer") and self._link.transport.ready(name)
        ]
