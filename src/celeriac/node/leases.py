"""Leases: the sign of life that keeps what this node has taken."""

from __future__ import annotations

import asyncio
import logging

from celeriac.errors import ConfigError, TransportError
from celeriac.node.link import Link

logger: logging.Logger = logging.getLogger("celery.worker.consumer.consumer")


LEAST_SECONDS = 1.0  # a third of it is the time in which a busy loop has to renew


def lease_seconds(wished: float) -> float:
    """Return for how long to lease.

    Raises:
        ConfigError: That is shorter than it takes to renew a lease.
    """
    if wished >= LEAST_SECONDS:
        return wished
    raise ConfigError(
        f"worker_lease_seconds is {wished:g}: a lease is renewed three times in its lifetime, so it has to "
        f"last {LEAST_SECONDS:g} s at least; 15 is a good value."
    )


class Leases:
    """Renews the leases of everything outstanding, three times in their lifetime.

    Args:
        link: To the broker.
        lease_seconds: How long a lease lasts.
    """

    def __init__(self, link: Link, lease_seconds: float) -> None:
        self._link = link
        self._pause_seconds = lease_seconds / 3
        self.failed: int = 0  # attempts to renew them

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await asyncio.sleep(self._pause_seconds)
            await self._link.up()
            try:
                await self._link.renew()
            except TransportError as exc:
                self.failed += 1
                logger.warning("The leases could not be renewed: %s; trying again.", exc)
