"""The revocations of a Redis broker: a sorted set of ids, one of stamps, and one of what is to be ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from celeriac.net.redis_link import pack
from celeriac.net.redis_script import Script
from celeriac.revocations import MOST, Remembered, Revocation
from celeriac.transports.redis.names import Names

Call = Callable[[bytes, int, str], list[Any]]  # Any: whatever Redis answers

# ===========================  ======  =================================================================
# ``celeriac.revoked``         zset    ids of revoked tasks, scored with when that was (the server's clock)
# ``celeriac.revoked.stamps``  zset    revoked stamps, ``["name","value in JSON"]``, scored likewise
# ``celeriac.revoked.ends``    zset    what shall not go on, ``["stamp's name","value","SIGTERM"]``, likewise
# ===========================  ======  =================================================================

# NOTE
#
# KEYS  1 one of the three   ARGV  1 seconds that revocations are kept   2 how many at most   then members
_NOTE: Final = Script(
    """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
for i = 3, #ARGV do
  redis.call('ZADD', KEYS[1], string.format('%.6f', now), ARGV[i])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.6f', now - ARGV[1]))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[2])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[1] * 1000))
"""
)
_AT_ONCE: Final = 5000  # members in one call: Lua takes only so many arguments, and others want to be served

_read_stamp: Final = msgspec.json.Decoder(tuple[str, str]).decode
_read_end: Final = msgspec.json.Decoder(tuple[str, str, str]).decode


class RedisRevocations:
    """What all nodes of a database shall not run, `celeriac.revocations.Revocations`.

    Args:
        names: The names of keys.
        call: Sends packed commands and returns their answers: data, how many, what for.
    """

    def __init__(self, names: Names, call: Call) -> None:
        self._ids = names.key("celeriac.revoked")
        self._stamps = names.key("celeriac.revoked.stamps")
        self._ends = names.key("celeriac.revoked.ends")
        self._call = call

    def note(self, revoked: Sequence[Revocation], *, kept_seconds: float) -> None:
        """See `celeriac.revocations.Revocations`."""
        members_of: dict[bytes, list[str]] = {self._ids: [], self._stamps: [], self._ends: []}
        for each in revoked:
            if each.signal:
                members_of[self._ends].append(_json((each.stamp, each.value, each.signal)))
            elif each.stamp:
                members_of[self._stamps].append(_json((each.stamp, each.value)))
            else:
                members_of[self._ids].append(each.value)
        for key, members in members_of.items():
            for start in range(0, len(members), _AT_ONCE):
                data = _NOTE.call([key], [kept_seconds, MOST, *members[start : start + _AT_ONCE]])
                self._call(_NOTE.load() + data, 2, "noting what is revoked")

    def recall(self) -> list[Remembered]:
        """See `celeriac.revocations.Revocations`."""
        read = [pack(("ZRANGE", key, 0, -1, "WITHSCORES")) for key in (self._ids, self._stamps, self._ends)]
        data = pack(("TIME",)) + b"".join(read)
        moment, ids, stamps, ends = self._call(data, 4, "asking what is revoked")
        now = int(moment[0]) + int(moment[1]) / 1e6
        found = [(now - made, Revocation(member.decode())) for member, made in _scored(ids)]
        for member, made in _scored(stamps):
            name, value = _read_stamp(member)
            found.append((now - made, Revocation(value, name)))
        for member, made in _scored(ends):
            name, value, signal = _read_end(member)
            found.append((now - made, Revocation(value, name, signal)))
        return [Remembered(each, max(0.0, age)) for age, each in sorted(found, key=_age, reverse=True)]


def _age(found: tuple[float, Revocation]) -> float:
    return found[0]


def _json(member: tuple[str, ...]) -> str:
    return msgspec.json.encode(member).decode()


def _scored(answer: Sequence[Any]) -> list[tuple[bytes, float]]:
    """Return members with their scores."""
    return [(member, float(score)) for member, score in answer]
