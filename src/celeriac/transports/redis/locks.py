"""The locks of a Redis broker: a key for each, which ends by itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from celeriac.locks import Lock
from celeriac.net.redis_link import Links, RedisFailure, checked
from celeriac.net.redis_script import Script
from celeriac.transports.redis.errors import translated
from celeriac.transports.redis.names import Names

_PATIENCE_SECONDS: Final = 5.0

# =====================  ======  =======================
# ``celeriac.lock:<x>``  string  the id of who holds x
# =====================  ======  =======================

# TAKE
#
# KEYS  1 lock
# ARGV  1 holder   2 milliseconds
# returns  who held it before, or nil
_TAKE: Final = Script("""
local held = redis.call('GET', KEYS[1])
if not held then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return held
""")

# FREE
#
# KEYS  1 lock
# ARGV  1 holder
# returns  1 when it was held, or 0
_FREE: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")

# KEEP
#
# KEYS  1 lock
# ARGV  1 holder   2 milliseconds
# returns  1 when it is held still, or 0
_KEEP: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")


class RedisLocks:
    """Locks for all clients and nodes of a database, `celeriac.locks.Locks`.

    Args:
        links: Connections of its own.
        address: For people.
        names: The names of keys.
    """

    def __init__(self, links: Links, address: str, names: Names) -> None:
        self._links = links
        self._address = address
        self._names = names

    def take(self, wanted: Sequence[Lock]) -> list[str | None]:
        """See `celeriac.locks.Locks`."""
        data = [_TAKE.load(), *(_TAKE.call([self._key(lock)], _terms(lock)) for lock in wanted)]
        answers = self._call(data, "taking locks of unique tasks")
        return [None if held is None else held.decode() for held in answers[1:]]

    def exchange(self, free: Sequence[Lock], keep: Sequence[Lock]) -> list[bool]:
        """See `celeriac.locks.Locks`."""
        data = [_FREE.load(), *(_FREE.call([self._key(lock)], [lock.holder]) for lock in free)]
        data += [_KEEP.load(), *(_KEEP.call([self._key(lock)], _terms(lock)) for lock in keep)]
        answers = self._call(data, "freeing locks of unique tasks")
        return [bool(kept) for kept in answers[len(free) + 2 :]]

    def close(self) -> None:
        """Close the connections."""
        self._links.close()

    def _key(self, lock: Lock) -> bytes:
        return self._names.key(f"celeriac.lock:{lock.name}")

    def _call(self, data: Sequence[bytes], doing: str) -> list[Any]:  # Any: whatever Redis answers
        until = time.monotonic() + _PATIENCE_SECONDS
        try:
            return checked(self._links.call(b"".join(data), len(data), until))
        except RedisFailure as exc:
            raise translated(exc, self._address, doing) from exc


def _terms(lock: Lock) -> list[str | int]:
    return [lock.holder, max(1, round(lock.seconds * 1000))]
