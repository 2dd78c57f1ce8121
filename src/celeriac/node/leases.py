"""Leases: the sign of life that keeps what this node has taken."""

from __future__ import annotations

import asyncio
import logging

from celeriac.errors import TransportError
from celeriac.node.link import Link

logger: logging.Logger = logging.getLogger("celery.worker.consumer.consumer")


class Leases:
    """Renews the leases of everything outstanding, three times in their lifetime.

    Args:
        link: To the broker.
        lease_seconds: How long a lease lasts.
    """

    def __init__(self, link: Link, lease_seconds: float) -> None:
        self._link = link
        self._pause_seconds = lease_seconds / 3

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await asyncio.sleep(self._pause_seconds)
            await self._link.up()
            try:
                await self._link.renew()
            except TransportError as exc:
                logger.warning("The leases could not be renewed: %s; trying again.", exc)
