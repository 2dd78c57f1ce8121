"""What waits at the broker for its time, as far as a node consumes it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from celeriac.errors import InvalidTaskError
from celeriac.node.work import Work
from celeriac.wire.task import unpack_headers

if TYPE_CHECKING:
    from celeriac.node.node import Node

MOST: Final = 1000  # of each queue: they are read, told and shown in one piece


async def parked(node: Node) -> list[tuple[Work, float]]:
    """Return what is parked in a node's queues as if the node held it, with its times in epoch seconds.

    What is revoked, or no message of today's protocol, is left out.

    Raises:
        TransportError: The broker cannot be reached, or refuses.
    """
    look = node.link.transport.parked
    found = []
    for queue in list(node.queues):
        for delivery, due in await asyncio.to_thread(look, queue, MOST):
            if delivery.defect is not None or "task" not in delivery.envelope.headers:
                continue
            try:
                headers = unpack_headers(delivery.envelope)
            except InvalidTaskError:  # who receives it will tell
                continue
            if not node.revoked.covers(headers):
                policy = node.policies.get(headers.task) or node.policies.of_unregistered()
                found.append((Work(0, delivery, headers, policy), due))
    return found
