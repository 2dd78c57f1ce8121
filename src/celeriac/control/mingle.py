"""What a worker that starts asks the others: their clock, and what was revoked before it came."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from celeriac.errors import CeleriacError
from celeriac.ports import Transport
from celeriac.remote.mailbox import Mailbox, Reply
from celeriac.wire.control import Command

if TYPE_CHECKING:
    from celeriac.node.node import Node

logger: logging.Logger = logging.getLogger("celery.worker.consumer.mingle")

WAIT_SECONDS: Final = 1.0  # for answers, as Celery waits
HEAD_START_SECONDS: Final = 0.1  # before the first task is taken; nearly always all have answered by then


class Mingle:
    """Asks the other workers once, as real Celery does, and does not keep the node from its work meanwhile.

    A task that was revoked before the node came is refused also when the answer comes late, unless it has
    begun by then.

    Args:
        node: The node that starts.
        transport: Where it hears commands.
    """

    def __init__(self, node: Node, transport: Transport) -> None:
        self._node = node
        self._mailbox = Mailbox(node.app, transport)
        self._asking: asyncio.Task[None] | None = None
        self._told = 0  # workers that have told anything

    async def open(self) -> None:
        """Ask, and wait a moment for the answers."""
        self._asking = asyncio.create_task(self._mingle(), name="mingle")
        await asyncio.wait([self._asking], timeout=HEAD_START_SECONDS)

    async def run(self) -> None:
        """Take in what comes later; then there is nothing to do."""
        if self._asking is None:
            return
        try:
            await self._asking
            await asyncio.get_running_loop().create_future()
        finally:
            self._asking.cancel()

    async def _mingle(self) -> None:
        node = self._node
        logger.info("mingle: searching for neighbors")
        hello = Command(
            method="hello",
            arguments={"from_node": node.hostname, "revoked": node.revoked.with_times()},
        )
        try:
            await self._mailbox.aask(hello, WAIT_SECONDS, self._take, besides=node.hostname)
        except CeleriacError as exc:
            logger.warning("Other workers cannot be asked what was revoked: %s", exc)
            return
        if self._told:
            logger.info("mingle: sync with %s nodes", self._told)
            logger.info("mingle: sync complete")
        else:
            logger.info("mingle: all alone")

    def _take(self, reply: Reply) -> None:
        """Take in what one worker has told."""
        for answer in reply.values():
            if not isinstance(answer, Mapping) or "clock" not in answer:
                continue
            self._told += 1
            clock = answer["clock"]
            if isinstance(clock, int):
                self._node.app.clock.adjust(clock)
            take_over(self._node, answer.get("revoked"))


def take_over(node: Node, revoked: Any) -> None:
    """Have a node know what others have revoked, and take back what waits of that.

    Args:
        node: The node.
        revoked: Ids with times of the other's own clock, which mean nothing here; something else is ignored.
    """
    if not isinstance(revoked, Mapping):
        return
    new = node.revoked.merge({str(task_id): None for task_id in revoked})
    if new:
        node.revoker.revoke(lambda headers: headers.id in new, None)
