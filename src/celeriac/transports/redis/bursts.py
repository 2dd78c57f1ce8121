"""The bursts of a Redis broker: a hash for each name; the rule is that of `celeriac.bursts.Burst`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from celeriac.bursts import GRACE_SECONDS, MARGIN_SECONDS, Turn
from celeriac.locks import PATIENCE_SECONDS
from celeriac.net.redis_script import Script
from celeriac.transports.redis.caller import Caller
from celeriac.transports.redis.names import Names

# ======================  ====  ====================================================================
# ``celeriac.burst:<x>``  hash  ``id`` of the burst, ``last`` and ``over``: numbers, ``due`` (epoch
#                               milliseconds), ``begun``: ``,number,number,``
# ======================  ====  ====================================================================

_NOW: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function number(field) return tonumber(redis.call('HGET', KEYS[1], field) or '0') end
"""

# JOIN
#
# KEYS  1 burst
# ARGV  1 the call's id   2 milliseconds until it is due   3 milliseconds that the burst is remembered
# returns  the burst's id and the call's number
_JOIN: Final = Script(
    _NOW
    + """
local id = redis.call('HGET', KEYS[1], 'id')
if not id or id == '' then id = ARGV[1] end
local last = string.format('%.0f', math.max(number('last') + 1, now))
redis.call('HSET', KEYS[1], 'id', id, 'last', last, 'due', string.format('%.0f', now + ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {id, last}
"""
)

# LEAVE
#
# KEYS  1 burst
# ARGV  1 the call's number
# returns  nothing
_LEAVE: Final = Script("""
if redis.call('HGET', KEYS[1], 'last') == ARGV[1] then redis.call('HSET', KEYS[1], 'due', 0) end
""")

# BEGIN
#
# KEYS  1 burst
# ARGV  1 the call's number   2 milliseconds that the burst is remembered   3 grace   4 margin
# returns  0: run it; -1: it is over; else milliseconds after which to ask again
_BEGIN: Final = Script(
    _NOW
    + """
local mine, last, due = tonumber(ARGV[1]), number('last'), number('due')
local begun = redis.call('HGET', KEYS[1], 'begun') or ','
if string.find(begun, ',' .. ARGV[1] .. ',', 1, true) then return 0 end
if mine <= number('over') then return -1 end
if mine < last and now < due + ARGV[3] then
  if now < due then return due - now + ARGV[4] end
  return math.max(tonumber(ARGV[4]), now - due)
end
begun = begun .. ARGV[1] .. ','
if #begun > 400 then begun = string.sub(begun, string.find(begun, ',', #begun - 300, true), -1) end
redis.call('HSET', KEYS[1], 'begun', begun, 'over', string.format('%.0f', math.max(last, mine) - 1), 'id', '')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 0
"""
)


class RedisBursts:
    """Bursts for all clients and nodes of a database, `celeriac.bursts.Bursts`.

    Args:
        caller: With connections of its own.
        names: The names of keys.
    """

    def __init__(self, caller: Caller, names: Names) -> None:
        self._caller = caller
        self._names = names

    def join(
        self,
        name: str,
        task_id: str,
        due_seconds: float,
        keep_seconds: float,
        *,
        deadline: float = PATIENCE_SECONDS,
    ) -> tuple[str, int]:
        """See `celeriac.bursts.Bursts`."""
        terms: list[str | int] = [task_id, _milliseconds(due_seconds), _milliseconds(keep_seconds)]
        [[id_, number]] = self._call(_JOIN, _JOIN.call([self._key(name)], terms), deadline=deadline)
        return id_.decode(), int(number)

    def leave(self, turn: Turn, *, deadline: float = PATIENCE_SECONDS) -> None:
        """See `celeriac.bursts.Bursts`."""
        self._call(_LEAVE, _LEAVE.call([self._key(turn.name)], [str(turn.number)]), deadline=deadline)

    def begin(self, turns: Sequence[Turn], keep_seconds: float) -> list[float]:
        """See `celeriac.bursts.Bursts`."""
        terms = [_milliseconds(s) for s in (keep_seconds, GRACE_SECONDS, MARGIN_SECONDS)]
        calls = [_BEGIN.call([self._key(turn.name)], [str(turn.number), *terms]) for turn in turns]
        answers = self._call(_BEGIN, *calls)
        return [float(told) if told <= 0 else told / 1000 for told in answers]

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()

    def _key(self, name: str) -> bytes:
        return self._names.key(f"celeriac.burst:{name}")

    def _call(
        self, script: Script, *calls: bytes, deadline: float = PATIENCE_SECONDS
    ) -> list[Any]:  # Any: whatever Redis answers
        data = script.load() + b"".join(calls)
        doing = "looking for the last of debounced calls"
        return self._caller.call(data, 1 + len(calls), doing, deadline)[1:]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
