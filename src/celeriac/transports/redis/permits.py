"""The permits of a Redis broker: two sorted sets for each thing that is limited, changed by scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from celeriac.net.redis_link import pack
from celeriac.net.redis_script import Script
from celeriac.permits import PERMIT_SECONDS, Claim
from celeriac.transports.redis.caller import Caller
from celeriac.transports.redis.names import Names

# ========================  ======  ====================================================================
# ``celeriac.permits:<x>``  zset    who holds a permit for x or stands in line, scored with the end of that
# ``celeriac.line:<x>``     zset    who stands in line, in order
# ========================  ======  ====================================================================

# A clock that was set back must not have the dead hold permits for as long: none ends later than a new one.
_CLEAR: Final = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local until_, longest = now + ARGV[1], math.max(ARGV[1], ARGV[2])
local last = string.format('%.6f', now + longest)
for _, holder in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. last, '+inf')) do
  redis.call('ZADD', KEYS[1], last, holder)
end
for _, holder in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now))) do
  redis.call('ZREM', KEYS[1], holder)
  redis.call('ZREM', KEYS[2], holder)
end
local answers = {}
"""
_END: Final = """
redis.call('PEXPIRE', KEYS[1], math.ceil(longest * 2000))
redis.call('PEXPIRE', KEYS[2], math.ceil(longest * 2000))
return answers
"""

# ASK
#
# KEYS  1 permits   2 line
# ARGV  1 seconds that a permit lasts unless it is renewed   2 those that it is held for and not renewed, or 0
#       3 the limit   then holders
# returns  for each holder 1 when it has a permit, or 0
_ASK: Final = Script(
    _CLEAR
    + """
local keeps = tonumber(ARGV[2])
for i = 4, #ARGV do
  local known = redis.call('ZSCORE', KEYS[1], ARGV[i])
  local waits = redis.call('ZSCORE', KEYS[2], ARGV[i])
  if known and not waits then
    if keeps == 0 then redis.call('ZADD', KEYS[1], until_, ARGV[i]) end
    answers[i - 3] = 1
  else
    redis.call('ZADD', KEYS[1], until_, ARGV[i])
    if not waits then
      local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
      redis.call('ZADD', KEYS[2], (last[2] or 0) + 1, ARGV[i])
    end
    local held = redis.call('ZCARD', KEYS[1]) - redis.call('ZCARD', KEYS[2])
    answers[i - 3] = redis.call('ZRANK', KEYS[2], ARGV[i]) < ARGV[3] - held and 1 or 0
    if answers[i - 3] == 1 then
      redis.call('ZREM', KEYS[2], ARGV[i])
      if keeps > 0 then redis.call('ZADD', KEYS[1], now + keeps, ARGV[i]) end
    end
  end
end
"""
    + _END
)

# RENEW
#
# KEYS  1 permits   2 line
# ARGV  1 seconds that a permit lasts   2 0   then holders
# returns  for each holder 1 when it has a permit still, or 0
_RENEW: Final = Script(
    _CLEAR
    + """
for i = 3, #ARGV do
  answers[i - 2] = 0
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) and not redis.call('ZSCORE', KEYS[2], ARGV[i]) then
    redis.call('ZADD', KEYS[1], until_, ARGV[i])
    answers[i - 2] = 1
  end
end
"""
    + _END
)


class RedisPermits:
    """Permits for all nodes of a database, `celeriac.permits.Permits`.

    Args:
        caller: With connections of its own.
        names: The names of keys.
    """

    def __init__(self, caller: Caller, names: Names) -> None:
        self._caller = caller
        self._names = names

    def exchange(self, back: Sequence[Claim], wanted: Sequence[Claim]) -> list[bool]:
        """See `celeriac.permits.Permits`."""
        data, count = [_ASK.load()], 1
        for limited, claims in _by_limited(back).items():
            holders = [claim.holder for claim in claims]
            data += [pack(("ZREM", key, *holders)) for key in self._keys(limited)]
            count += 2
        groups = _by_limited(wanted)
        for limited, claims in groups.items():
            terms = [PERMIT_SECONDS, claims[0].keeps_seconds, claims[0].limit]
            data.append(_ASK.call(self._keys(limited), [*terms, *_holders(claims)]))
        answers = self._caller.call(b"".join(data), count + len(groups), "asking for permits")
        return _in_order(wanted, groups, answers[count:])

    def renew(self, claims: Sequence[Claim]) -> list[bool]:
        """See `celeriac.permits.Permits`."""
        data, groups = [_RENEW.load()], _by_limited(claims)
        for limited, some in groups.items():
            data.append(_RENEW.call(self._keys(limited), [PERMIT_SECONDS, 0, *_holders(some)]))
        answers = self._caller.call(b"".join(data), 1 + len(groups), "renewing permits")
        return _in_order(claims, groups, answers[1:])

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()

    def _keys(self, limited: str) -> tuple[bytes, bytes]:
        return self._names.key(f"celeriac.permits:{limited}"), self._names.key(f"celeriac.line:{limited}")


def _holders(claims: Sequence[Claim]) -> list[str]:
    return [claim.holder for claim in claims]


def _by_limited(claims: Sequence[Claim]) -> dict[str, list[Claim]]:
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(claim.limited, []).append(claim)
    return groups


def _in_order(
    claims: Sequence[Claim], groups: dict[str, list[Claim]], answers: Sequence[list[int]]
) -> list[bool]:
    """Return the answers to groups of claims in the order of the claims."""
    known: dict[Claim, bool] = {}
    for group, answered in zip(groups.values(), answers, strict=True):
        known.update(zip(group, map(bool, answered), strict=True))
    return [known[claim] for claim in claims]
