"""The timetables of a Redis broker: for each app three keys, changed by scripts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from celeriac.net.redis_script import Script
from celeriac.timetable import Changes, Lead, Line
from celeriac.transports.redis.caller import Caller
from celeriac.transports.redis.names import Names

_REMOVED: Final = b"-"
_KEPT: Final = b"+"  # before every value, so that none looks like a removed one

# ================================  ======  ============================================================
# ``celeriac.timetable:<owner>``    hash    ``holder``, ``term``, ``at``; ``revision`` of the newest line
# ``celeriac.lines:<owner>``        hash    the lines: ``+`` and the value, or ``-`` when it was removed
# ``celeriac.revisions:<owner>``    zset    the keys of lines, scored with their revisions
# ================================  ======  ============================================================
#
# All scripts have KEYS  1 timetable   2 lines   3 revisions

# LEAD
# returns  {holder, term, at}
_LEAD: Final = Script("return redis.call('HMGET', KEYS[1], 'holder', 'term', 'at')")

# TAKE
# ARGV  1 holder   2 the term that is to end   3 the time
# returns  1 when it was that term, or 0
_TAKE: Final = Script(
    """
if (redis.call('HGET', KEYS[1], 'term') or '0') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'term', string.format('%d', ARGV[2] + 1), 'at', ARGV[3])
return 1
"""
)

# CHANGES
# ARGV  1 a revision
# returns  {the newest revision, key, its revision, its value, key, …}
_CHANGES: Final = Script(
    """
local out = {redis.call('HGET', KEYS[1], 'revision') or '0'}
local found = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[1], '+inf', 'WITHSCORES')
for i = 1, #found, 2 do
  out[#out + 1] = found[i]
  out[#out + 1] = found[i + 1]
  out[#out + 1] = redis.call('HGET', KEYS[2], found[i])
end
return out
"""
)

_PUT: Final = """
local revision = redis.call('HINCRBY', KEYS[1], 'revision', 1)
for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[3], revision, ARGV[i])
end
return 1
"""

# WRITE
# ARGV  1 the writer's term   then key, value, key, …
# returns  1 when it is that term, or 0
_WRITE: Final = Script("if (redis.call('HGET', KEYS[1], 'term') or '0') ~= ARGV[1] then return 0 end" + _PUT)

# EDIT
# ARGV  1 the line's revision   2 key   3 value
# returns  1 when it is that revision, or 0
_EDIT: Final = Script(
    "if (redis.call('ZSCORE', KEYS[3], ARGV[2]) or '0') ~= ARGV[1] then return 0 end" + _PUT
)


class RedisTimetable:
    """A timetable for all schedulers that reach a database, `celeriac.timetable.Timetable`.

    Args:
        caller: With connections of its own.
        names: The names of keys.
        owner: Whose timetable it is.
    """

    def __init__(self, caller: Caller, names: Names, owner: str) -> None:
        self.address: str = caller.address
        self._caller = caller
        self._keys = [names.key(f"celeriac.{what}:{owner}") for what in ("timetable", "lines", "revisions")]

    def lead(self) -> Lead:
        """See `celeriac.timetable.Timetable`."""
        holder, term, at = self._call(_LEAD, [], "asking who leads the schedulers")
        return Lead((holder or b"").decode(), int(term or 0), float(at or 0))

    def take(self, holder: str, term: int, at: float) -> bool:
        """See `celeriac.timetable.Timetable`."""
        return bool(self._call(_TAKE, [holder, term, f"{at:.3f}"], "taking the lead of the schedulers"))

    def changes(self, after: int) -> Changes:
        """See `celeriac.timetable.Timetable`."""
        newest, *rest = self._call(_CHANGES, [after], "reading the timetable")
        lines = {
            key.decode(): Line(None if value == _REMOVED else value[1:], int(revision))
            for key, revision, value in zip(rest[::3], rest[1::3], rest[2::3], strict=True)
        }
        return Changes(int(newest), lines)

    def write(self, lines: Mapping[str, bytes | None], term: int) -> bool:
        """See `celeriac.timetable.Timetable`."""
        words = [word for key, value in lines.items() for word in (key, _stored(value))]
        return bool(self._call(_WRITE, [term, *words], "writing the timetable"))

    def edit(self, key: str, value: bytes | None, revision: int) -> bool:
        """See `celeriac.timetable.Timetable`."""
        return bool(self._call(_EDIT, [revision, key, _stored(value)], "changing the timetable"))

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()

    def _call(self, script: Script, arguments: list[Any], doing: str) -> Any:  # Any: whatever Redis answers
        data = script.load() + script.call(self._keys, arguments)
        return self._caller.call(data, 2, doing)[1]


def _stored(value: bytes | None) -> bytes:
    return _REMOVED if value is None else _KEPT + value
