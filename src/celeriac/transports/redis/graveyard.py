"""The dead letters of a Redis broker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import msgspec

from celeriac.letters import EVERYTHING, Letter, Wanted, matches
from celeriac.net.redis_link import pack
from celeriac.transports.redis import postmarks
from celeriac.transports.redis.names import Names
from celeriac.transports.redis.sender_scripts import RETRY

_AT_ONCE: Final = 200  # letters in one step, so that no step holds up the server

Call = Callable[[bytes, int, str], list[Any]]  # Any: whatever Redis answers


class _Line(msgspec.Struct):
    """What stands before the message in an item of the list."""

    reason: str = ""
    kind: str = ""
    at: float = 0.0
    node: str = ""
    attempt: int = 0


_read_line: Final = msgspec.json.Decoder(_Line).decode


class RedisGraveyard:
    """Finds, retries and removes dead letters; a letter's id is a hash of all that is kept of it.

    Args:
        names: The names of keys.
        call: Sends packed commands and returns their answers: data, how many, what for.
    """

    def __init__(self, names: Names, call: Call) -> None:
        self._names = names
        self._call = call

    def find(self, queue: str, wanted: Wanted = EVERYTHING, limit: int = 100) -> list[Letter]:
        """See `celeriac.ports.Graveyard`."""
        found: list[Letter] = []
        for item in self._items(queue):
            letter = _letter(queue, *_split(item))
            if matches(letter, wanted):
                found.append(letter)
                if len(found) >= limit:
                    break
        return found[:limit]

    def retry(self, queue: str, ids: Collection[str]) -> list[str]:
        """See `celeriac.ports.Graveyard`; a script moves each."""
        chosen = self._chosen(queue, ids)
        moved: list[str] = []
        for some in _portions(chosen):
            arguments: list[bytes] = []
            for _, item in some:
                message = _split(item)[2]
                priority = postmarks.opened(message).envelope.properties.priority
                arguments += [item, self._names.list_of(queue, priority), postmarks.unmarked(message)]
            data = RETRY.load() + RETRY.call([self._names.dead(queue)], arguments)
            _, there = self._call(data, 2, f"sending dead letters of {queue!r} again")
            moved += [some[number - 1][0] for number in there]
        return moved

    def purge(self, queue: str, ids: Collection[str]) -> list[str]:
        """See `celeriac.ports.Graveyard`."""
        removed: list[str] = []
        for some in _portions(self._chosen(queue, ids)):
            data = b"".join(pack(("LREM", self._names.dead(queue), 1, item)) for _, item in some)
            counts = self._call(data, len(some), f"purging dead letters of {queue!r}")
            removed += [id_ for (id_, _), count in zip(some, counts, strict=True) if count]
        return removed

    def _chosen(self, queue: str, ids: Collection[str]) -> list[tuple[str, bytes]]:
        """Return id and item of those that are there, the oldest first."""
        pairs = [(_id(item), item) for item in self._items(queue)]
        return [(id_, item) for id_, item in reversed(pairs) if id_ in ids]

    def _items(self, queue: str) -> Iterator[bytes]:
        """Yield the items, newest first; those that come meanwhile may have one come twice or not at all."""
        first = 0
        while True:
            command = pack(("LRANGE", self._names.dead(queue), first, first + _AT_ONCE - 1))
            [items] = self._call(command, 1, f"reading the dead letters of {queue!r}")
            yield from items
            if len(items) < _AT_ONCE:
                return
            first += _AT_ONCE


def _portions(chosen: list[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    for first in range(0, len(chosen), _AT_ONCE):
        yield chosen[first : first + _AT_ONCE]


def _id(item: bytes) -> str:
    return hashlib.sha256(item).hexdigest()[:16]


def _split(item: bytes) -> tuple[str, _Line, bytes]:
    """Return id, note and message of an item; one that somebody else put there is all message."""
    line, _, message = item.partition(b"\n")
    try:
        return _id(item), _read_line(line), message
    except (msgspec.MsgspecError, ValueError):
        return _id(item), _Line(), item


def _letter(queue: str, id_: str, line: _Line, message: bytes) -> Letter:
    opened = postmarks.opened(postmarks.unmarked(message))
    return Letter(
        id=id_,
        queue=queue,
        kind=line.kind,
        reason=line.reason,
        at=line.at,
        node=line.node,
        attempt=line.attempt,
        exchange=opened.exchange,
        routing_key=opened.routing_key,
        envelope=opened.envelope,
    )
