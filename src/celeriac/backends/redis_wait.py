"""Waiting for results on Redis: one connection that listens to all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from celeriac.errors import TimeoutError as ResultTimeout
from celeriac.message import Outcome
from celeriac.net.redis_link import (
    Link,
    Links,
    NoAnswer,
    RedisFailure,
    checked,
    pack,
)
from celeriac.states import READY_STATES

_QUIET_SECONDS = 2.0  # so long without a word, and the server is asked whether it is still there
_ANSWER_SECONDS = 2.5  # for that; both together stay below the 5 s in which a client resumes
_PATIENCE_SECONDS = 30.0  # how long a server may stay away before waiting for it is given up
_FIRST_PAUSE_SECONDS = 0.05  # before connecting again; doubles up to
_LONGEST_PAUSE_SECONDS = 1.0
_FEW = 8  # finished channels that may stay subscribed until the connection is used again
_AT_ONCE = 500  # documents in one MGET: a command must not hold up the server for long

Decode = Callable[[str, bytes], Outcome]


class Wait:
    """One wait for some results.

    Nobody listened before, so a result may be there already: it subscribes first and then reads, both in one
    round trip; what is stored in between comes by both ways and is yielded once.

    Args:
        links: Connections.
        keys: The key of every result, which is its channel too -> its task id.
        timeout: Seconds for all of them; None waits for ever.
        decode: Turns a task id and a document into an outcome.
    """

    def __init__(self, links: Links, keys: dict[bytes, str], timeout: float | None, decode: Decode) -> None:
        self._links = links
        self._missing = keys
        self._timeout = timeout
        self._until = math.inf if timeout is None else time.monotonic() + timeout
        self._decode = decode
        self._subscribed = 0

    def outcomes(self) -> Iterator[Outcome]:
        """Yield them as they become ready; survives that the server goes away for a while.

        Raises:
            TimeoutError: (celeriac.errors) not all were ready in time.
            RedisFailure: The server stayed away, or refused.
        """
        pause = _FIRST_PAUSE_SECONDS
        away_since: float | None = None
        while self._missing:
            try:
                for outcome in self._listen():
                    yield outcome
                    away_since, pause = None, _FIRST_PAUSE_SECONDS
            except RedisFailure as exc:
                now = time.monotonic()
                away_since = away_since or now
                if now >= self._until:
                    raise self._too_late() from exc
                if not exc.passing or now - away_since > _PATIENCE_SECONDS:
                    raise
                time.sleep(min(pause, self._until - now))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _listen(self) -> Iterator[Outcome]:
        link = self._links.take(min(self._until, time.monotonic() + _ANSWER_SECONDS))
        try:
            yield from self._read(link)
            yield from self._hear(link)
        except RedisFailure:
            link.close()
            raise
        except BaseException:  # of the caller's, or it wants no more: the connection is still good
            self._leave(link)
            raise
        self._leave(link)

    def _leave(self, link: Link) -> None:
        """Unsubscribe: from a few channels along with whatever is asked next, from many at once.

        Nobody waits for the answer: what still comes is dropped by whoever uses the connection next.
        """
        link.farewell = pack(("UNSUBSCRIBE",))
        if self._subscribed > _FEW:
            try:
                link.send(b"", time.monotonic() + _ANSWER_SECONDS)
            except RedisFailure:
                link.close()
                return
        self._links.give(link)

    def _read(self, link: Link) -> Iterator[Outcome]:
        keys = list(self._missing)
        self._subscribed = len(keys)
        parts = [keys[i : i + _AT_ONCE] for i in range(0, len(keys), _AT_ONCE)]
        data = pack(("SUBSCRIBE", *keys)) + b"".join(pack(("MGET", *part)) for part in parts)
        answers = checked(link.call(data, len(parts), time.monotonic() + _ANSWER_SECONDS))
        for key, document in zip(keys, (document for part in answers for document in part), strict=True):
            if document is not None:
                yield from self._ready(key, document)

    def _hear(self, link: Link) -> Iterator[Outcome]:
        while self._missing:
            try:
                push = link.push(min(self._until, time.monotonic() + _QUIET_SECONDS))
            except NoAnswer:
                if time.monotonic() >= self._until:
                    raise self._too_late() from None
                checked(link.call(pack(("PING",)), 1, time.monotonic() + _ANSWER_SECONDS))
                continue
            if push[0] == b"message":
                yield from self._ready(push[1], push[2])

    def _ready(self, key: bytes, document: bytes) -> Iterator[Outcome]:
        task_id = self._missing.get(key)
        if task_id is None:
            return
        outcome = self._decode(task_id, document)
        if outcome.state in READY_STATES:
            del self._missing[key]
            yield outcome

    def _too_late(self) -> ResultTimeout:
        return ResultTimeout(
            f"The operation timed out: {len(self._missing)} result(s) not ready in {self._timeout} s."
        )
