"""How a node is, for those who ask over HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from celeriac.errors import TransportError
from celeriac.node.health.exposition import Family
from celeriac.node.health.figures import QueueFigures, families

if TYPE_CHECKING:
    from celeriac.node.node import Node
    from celeriac.node.watchdog import Watchdog

logger: logging.Logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 2.0  # for the broker to tell how long the queues are


class NodeCondition:
    """A `celeriac.node.health.server.Condition`, on the node's loop.

    The broker is asked for the lengths and ages of queues in a thread, by one request at a time.

    Args:
        node: The node.
        watchdog: Knows whether it gets on; None: nobody looks.
    """

    def __init__(self, node: Node, watchdog: Watchdog | None) -> None:
        self._node = node
        self._watchdog = watchdog
        self._look: asyncio.Task[dict[str, QueueFigures]] | None = None

    @property
    def dead(self) -> str | None:
        """What the watchdog has found."""
        return None if self._watchdog is None else self._watchdog.found

    @property
    def unready(self) -> str | None:
        """Why it takes no messages."""
        return self._node.unready

    async def figures(self) -> list[Family]:
        """Return everything that is told of a node."""
        return families(self._node, await self._depths(), time.time())

    async def close(self) -> None:
        """Look no more."""
        if self._look is not None:
            self._look.cancel()

    async def _depths(self) -> dict[str, QueueFigures]:
        """Return what there is to know of the queues; nothing when the broker does not tell in time."""
        if not self._node.link.is_up:
            return {}
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(asyncio.to_thread(self._sizes), name="depths")
        done, _ = await asyncio.wait([self._look], timeout=_LOOK_SECONDS)
        try:
            return self._look.result() if done else {}
        except TransportError as exc:
            logger.info("The queues could not be looked at: %s", exc)
            return {}

    def _sizes(self) -> dict[str, QueueFigures]:
        transport = self._node.link.transport
        return {name: QueueFigures.of(transport, name) for name in list(self._node.queues)}
