"""The locks of a Redis broker: a key for each, which ends by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from celeriac.locks import PATIENCE_SECONDS, UNSENT_MARK, Lock
from celeriac.net.redis_script import Script
from celeriac.transports.redis.caller import Caller
from celeriac.transports.redis.names import Names

# =====================  ======  ============================================================
# ``celeriac.lock:<x>``  string  the id of who holds x; with a mark in front: not known to be sent
# =====================  ======  ============================================================

# TAKE
#
# KEYS  1 lock
# ARGV  1 holder, with the mark   2 milliseconds
# returns  who held it before, or nil
_TAKE: Final = Script("""
local held = redis.call('GET', KEYS[1])
if not held then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return held
""")

# CONFIRM
#
# KEYS  1 lock
# ARGV  1 holder   2 milliseconds   3 the mark
_CONFIRM: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[3] .. ARGV[1] then return end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
""")

# FREE
#
# KEYS  1 lock
# ARGV  1 holder   2 the mark
# returns  1 when it was held, or 0
_FREE: Final = Script("""
local held = redis.call('GET', KEYS[1])
if held ~= ARGV[1] and held ~= ARGV[2] .. ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")

# KEEP
#
# KEYS  1 lock
# ARGV  1 holder   2 milliseconds   3 the mark
# returns  1 when it is held still, or 0
_KEEP: Final = Script("""
local held = redis.call('GET', KEYS[1])
if held ~= ARGV[1] and held ~= ARGV[3] .. ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""")


class RedisLocks:
    """Locks for all clients and nodes of a database, `celeriac.locks.Locks`.

    Args:
        caller: With connections of its own.
        names: The names of keys.
    """

    def __init__(self, caller: Caller, names: Names) -> None:
        self._caller = caller
        self._names = names

    def take(self, wanted: Sequence[Lock], *, deadline: float = PATIENCE_SECONDS) -> list[str | None]:
        """See `celeriac.locks.Locks`."""
        data = [_TAKE.load()]
        data += [
            _TAKE.call([self._key(lock)], [UNSENT_MARK + lock.holder, _milliseconds(lock)]) for lock in wanted
        ]
        answers = self._caller.call(b"".join(data), len(data), "taking locks of unique tasks", deadline)
        return [None if held is None else held.decode().removeprefix(UNSENT_MARK) for held in answers[1:]]

    def confirm(self, sent: Sequence[Lock], *, deadline: float = PATIENCE_SECONDS) -> None:
        """See `celeriac.locks.Locks`."""
        data = [_CONFIRM.load(), *(_CONFIRM.call([self._key(lock)], _terms(lock)) for lock in sent)]
        self._caller.call(b"".join(data), len(data), "keeping locks of unique tasks", deadline)

    def exchange(
        self, free: Sequence[Lock], keep: Sequence[Lock], *, deadline: float = PATIENCE_SECONDS
    ) -> list[bool]:
        """See `celeriac.locks.Locks`."""
        data = [_FREE.load(), *(_FREE.call([self._key(lock)], [lock.holder, UNSENT_MARK]) for lock in free)]
        data += [_KEEP.load(), *(_KEEP.call([self._key(lock)], _terms(lock)) for lock in keep)]
        answers = self._caller.call(b"".join(data), len(data), "freeing locks of unique tasks", deadline)
        return [bool(kept) for kept in answers[len(free) + 2 :]]

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()

    def _key(self, lock: Lock) -> bytes:
        return self._names.key(f"celeriac.lock:{lock.name}")


def _terms(lock: Lock) -> list[str | int]:
    return [lock.holder, _milliseconds(lock), UNSENT_MARK]


def _milliseconds(lock: Lock) -> int:
    return max(1, round(lock.seconds * 1000))
