"""Waiting for results on Redis: one connection that listens to all of them."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from celeriac.errors import BackendError
from celeriac.message import Outcome
from celeriac.net.alarm import Alarm
from celeriac.net.redis_link import (
    MORE,
    Link,
    Links,
    NoAnswer,
    Push,
    RedisFailure,
    checked,
    pack,
)
from celeriac.states import READY_STATES

_QUIET_SECONDS = 2.0  # so long without a word, and the server is asked whether it is still there
_ANSWER_SECONDS = 2.5  # for that; both together stay below the 5 s in which a client resumes
_SHORT_SECONDS = 0.5  # for bytes that are there
_LEAST_SECONDS = 0.25  # even who does not want to wait gets the answer to what is known already
_PATIENCE_SECONDS = 30.0  # how long a server may stay away before waiting for it is given up
_FIRST_PAUSE_SECONDS = 0.05  # before connecting again; doubles up to
_LONGEST_PAUSE_SECONDS = 1.0
_FEW = 8  # finished channels that may stay subscribed until the connection is used again
_MANY = 500  # finished channels that are left while others are listened to
_AT_ONCE = 500  # documents in one MGET: a command must not hold up the server for long

Decode = Callable[[str, bytes], Outcome]
Translate = Callable[[RedisFailure], BackendError]


class RedisListener:
    """Hears of results by their channels; see `celeriac.ports.Listener`.

    Nobody listened before, so a result may be there already: it subscribes first and then reads, both in one
    round trip; what is stored in between comes by both ways and counts once. It survives that the server goes
    away for a while.

    Args:
        links: Connections.
        alarm: What `wake` rings.
        key: Returns the key of a task's result, which is its channel too.
        decode: Turns a task id and a document into an outcome.
        translate: Turns what went wrong on the connection into the error to raise.
    """

    def __init__(
        self, links: Links, alarm: Alarm, key: Callable[[str], str], decode: Decode, translate: Translate
    ) -> None:
        self._links = links
        self._alarm = alarm
        self._key = key
        self._decode = decode
        self._translate = translate
        self._watched: dict[bytes, str] = {}
        self._done: list[bytes] = []  # channels still subscribed to, for nothing
        self._link: Link | None = None
        self._asked: deque[list[bytes]] = deque()  # the keys of each command to be answered; PING has none
        self._answer_by = 0.0
        self._first_answer_by = 0.0
        self._away_since: float | None = None
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    def watch(self, ids: Sequence[str]) -> list[Outcome]:
        """Subscribe to these too and ask for what is known; `hear` gets the answer."""
        keys = {self._key(id).encode(): id for id in ids}
        self._watched.update(keys)
        self._first_answer_by = time.monotonic() + _LEAST_SECONDS
        if self._link is not None:  # else `hear` connects and subscribes to all
            try:
                self._subscribe(self._link, list(keys))
            except RedisFailure:
                self._drop_link()
        return []

    def unwatch(self, ids: Sequence[str]) -> None:
        """Leave the channels of these, when there are enough to be worth it."""
        keys = [self._key(id).encode() for id in ids]
        self._done += [key for key in keys if self._watched.pop(key, None) is not None]

    def hear(self, until: float) -> list[Outcome]:
        """Return the next outcomes; see `celeriac.ports.Listener`.

        Raises:
            BackendError: The server stayed away, or refused.
        """
        while True:
            try:
                outcomes = self._read(until)
            except RedisFailure as exc:
                self._drop_link()
                now = time.monotonic()
                self._away_since = self._away_since or now
                if exc.passing and now >= until:
                    return []
                if not exc.passing or now - self._away_since > _PATIENCE_SECONDS:
                    raise self._translate(exc) from exc
                if self._alarm.sleep(min(now + self._pause_seconds, until)) == "rung":
                    return []
                self._pause_seconds = min(self._pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
            else:
                self._away_since, self._pause_seconds = None, _FIRST_PAUSE_SECONDS
                return outcomes

    def wake(self) -> None:
        """Have `hear` return soon."""
        self._alarm.ring()

    def close(self) -> None:
        """Unsubscribe and give the connection back.

        From a few channels along with whatever is asked next, from many at once. Nobody waits for the answer:
        what still comes is dropped by whoever uses the connection next.
        """
        link, self._link = self._link, None
        if link is None:
            return
        if self._asked:  # its answers would be taken for those of others
            link.close()
            return
        link.farewell = pack(("UNSUBSCRIBE",))
        if len(self._watched) + len(self._done) > _FEW:
            try:
                link.send(b"", time.monotonic() + _ANSWER_SECONDS)
            except RedisFailure:
                link.close()
                return
        link.used_at = time.monotonic()
        self._links.give(link)

    # --- inside ---

    def _connected(self, until: float) -> Link:
        if self._link is None:
            now = time.monotonic()
            link = self._links.take(min(max(until, now + _LEAST_SECONDS), now + _ANSWER_SECONDS))
            self._done.clear()
            self._link = link
            self._subscribe(link, list(self._watched))
        return self._link

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        self._asked.clear()
        self._done.clear()
        if link is not None:
            link.close()

    def _subscribe(self, link: Link, keys: list[bytes]) -> None:
        if not keys:
            return
        parts = [keys[i : i + _AT_ONCE] for i in range(0, len(keys), _AT_ONCE)]
        data = pack(("SUBSCRIBE", *keys)) + b"".join(pack(("MGET", *part)) for part in parts)
        if len(self._done) > _MANY:
            data = pack(("UNSUBSCRIBE", *self._done)) + data
            self._done.clear()
        self._ask(link, data, parts)

    def _ask(self, link: Link, data: bytes, expected: list[list[bytes]]) -> None:
        self._answer_by = time.monotonic() + _ANSWER_SECONDS
        self._asked += expected
        link.send(data, self._answer_by)

    def _read(self, until: float) -> list[Outcome]:
        link = self._connected(until)
        outcomes = self._received(link)
        while not outcomes:
            now = time.monotonic()
            if self._asked and now >= self._answer_by:
                raise NoAnswer("no answer in time")
            wait_until = max(until, self._first_answer_by) if self._asked else until
            if now >= wait_until:
                return []
            limit = self._answer_by if self._asked else now + _QUIET_SECONDS
            woken = "readable" if _pending(link) else self._alarm.sleep(min(wait_until, limit), link.socket)
            if woken == "rung":
                return []
            if woken == "readable":
                with contextlib.suppress(NoAnswer):  # TLS: a part of a record
                    link.receive(time.monotonic() + _SHORT_SECONDS)
            elif not self._asked and limit <= wait_until:
                self._ask(link, pack(("PING",)), [[]])
            outcomes = self._received(link)
        return outcomes

    def _received(self, link: Link) -> list[Outcome]:
        """Return the final and other outcomes in what has been received."""
        found: list[Outcome] = []
        while True:
            item = link.pushes.popleft() if link.pushes else link.reader.gets()
            if item is MORE:
                return found
            if type(item) is not Push:
                self._answered(item, found)
            elif item[0] == b"message":
                self._take(item[1], item[2], found)

    def _answered(self, answer: Any, found: list[Outcome]) -> None:  # Any: Redis's answer
        checked([answer])
        keys = self._asked.popleft()
        self._answer_by = time.monotonic() + _ANSWER_SECONDS
        if keys:
            for key, document in zip(keys, answer, strict=True):
                if document is not None:
                    self._take(key, document, found)

    def _take(self, key: bytes, document: bytes, found: list[Outcome]) -> None:
        task_id = self._watched.get(key)
        if task_id is None:
            return
        outcome = self._decode(task_id, document)
        found.append(outcome)
        if outcome.state in READY_STATES:
            del self._watched[key]
            self._done.append(key)


def _pending(link: Link) -> bool:
    """Return whether TLS has read more than it has given us, which polling the socket would not show."""
    pending = getattr(link.socket, "pending", None)
    return pending is not None and pending() > 0
