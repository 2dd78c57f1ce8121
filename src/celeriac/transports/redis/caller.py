"""Calls that are neither sending nor receiving: administration, and what is kept beside the messages."""

from __future__ import annotations

import time
from typing import Any, Final

from celeriac.net.redis_link import Links, RedisFailure, checked
from celeriac.transports.redis.errors import translated

_PATIENCE_SECONDS: Final = 5.0


class Caller:
    """Says commands to a server and waits for the answers; safe for threads.

    Args:
        links: Its connections.
        address: For people.
    """

    def __init__(self, links: Links, address: str) -> None:
        self._links = links
        self.address: str = address

    def call(
        self, data: bytes, count: int, doing: str, deadline: float = _PATIENCE_SECONDS
    ) -> list[Any]:  # Any: whatever Redis answers
        """Return the answers to packed commands.

        Args:
            data: The commands.
            count: How many they are.
            doing: What for, should it fail.
            deadline: Seconds that connecting and answering may take together.

        Raises:
            TransportError: The server cannot be reached, or refuses one.
        """
        try:
            return checked(self._links.call(data, count, time.monotonic() + deadline))
        except RedisFailure as exc:
            raise translated(exc, self.address, doing) from exc

    def close(self) -> None:
        """Close the connections."""
        self._links.close()
