"""The paused queues of a Redis broker: one set of names."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, Final

from celeriac.net.redis_link import Links, RedisFailure, checked, pack
from celeriac.transports.redis.errors import translated
from celeriac.transports.redis.names import Names

_PATIENCE_SECONDS: Final = 5.0


class RedisPauses:
    """Paused queues of all workers of a database, in the set ``celeriac.paused``, `celeriac.pauses.Pauses`.

    Args:
        links: Connections of its own.
        address: For people.
        names: The names of keys.
    """

    look_seconds: float = 1.5

    def __init__(self, links: Links, address: str, names: Names) -> None:
        self._links = links
        self._address = address
        self._key = names.key("celeriac.paused")

    def pause(self, queue: str) -> None:
        """See `celeriac.pauses.Pauses`."""
        self._call(pack(("SADD", self._key, queue)), f"pausing {queue!r}")

    def resume(self, queue: str) -> None:
        """See `celeriac.pauses.Pauses`."""
        self._call(pack(("SREM", self._key, queue)), f"resuming {queue!r}")

    def among(self, queues: Collection[str]) -> set[str]:
        """See `celeriac.pauses.Pauses`."""
        found = self._call(pack(("SMEMBERS", self._key)), "asking which queues are paused")
        return {name.decode("utf-8", "surrogateescape") for name in found}.intersection(queues)

    def close(self) -> None:
        """Close the connections."""
        self._links.close()

    def _call(self, data: bytes, doing: str) -> Any:  # Any: whatever Redis answers
        try:
            [answer] = checked(self._links.call(data, 1, time.monotonic() + _PATIENCE_SECONDS))
        except RedisFailure as exc:
            raise translated(exc, self._address, doing) from exc
        return answer
