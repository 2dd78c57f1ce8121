"""The paused queues of a Redis broker: one set of names."""

from __future__ import annotations

from collections.abc import Collection

from celeriac.net.redis_link import pack
from celeriac.transports.redis.caller import Caller
from celeriac.transports.redis.names import Names


class RedisPauses:
    """Paused queues of all workers of a database, in the set ``celeriac.paused``, `celeriac.pauses.Pauses`.

    Args:
        caller: With connections of its own.
        names: The names of keys.
    """

    look_seconds: float = 1.5

    def __init__(self, caller: Caller, names: Names) -> None:
        self._caller = caller
        self._key = names.key("celeriac.paused")

    def pause(self, queue: str) -> None:
        """See `celeriac.pauses.Pauses`."""
        self._caller.call(pack(("SADD", self._key, queue)), 1, f"pausing {queue!r}")

    def resume(self, queue: str) -> None:
        """See `celeriac.pauses.Pauses`."""
        self._caller.call(pack(("SREM", self._key, queue)), 1, f"resuming {queue!r}")

    def among(self, queues: Collection[str]) -> set[str]:
        """See `celeriac.pauses.Pauses`."""
        [found] = self._caller.call(pack(("SMEMBERS", self._key)), 1, "asking which queues are paused")
        return {name.decode("utf-8", "surrogateescape") for name in found}.intersection(queues)

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()
