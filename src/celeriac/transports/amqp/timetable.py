"""A timetable on RabbitMQ, where there is no other store: an exclusive queue says who leads.

Such a queue belongs to one connection and goes with it, so a leader that is killed is followed at once, and
one that is frozen or cut off as soon as RabbitMQ misses its heartbeats. The lines are one message, in a queue
that keeps the newest only. The leader writes it on the connection of the exclusive queue, and with it, in one
transaction, the message of the slot that it notes: a death sends and notes both or none, and who wakes up
when another leads has no connection any more.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from celeriac.errors import BrokerUnreachable, DecodeError, TransportError
from celeriac.message import Envelope, Outgoing, Props
from celeriac.queues import Queue
from celeriac.timetable import NOBODY, Changes, Lead, Line
from celeriac.transports.amqp import frames, topology
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.connection import Lost, Message, Refused
from celeriac.transports.amqp.link import Link
from celeriac.transports.amqp.tables import encode_properties

_CHANNEL: Final = 1
_TRANSACTIONS: Final = 2  # the channel of these
_LOCKED: Final = 405
_NOT_FOUND: Final = 404
# RabbitMQ lets go of who has been silent for two or three; the leader asks it something every second.
_HEARTBEAT_SECONDS: Final = 2
_PATIENCE_SECONDS: Final = 5.0
_MOST_KEPT: Final = 3  # messages in the queue of lines: while one is looked at, another may come
_ANOTHER: Final = "another scheduler"


class _Page(msgspec.Struct, array_like=True):
    revision: int
    lines: dict[str, tuple[bytes | None, int]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Page).decode


class AmqpTimetable:
    """A timetable for all schedulers of a virtual host, `celeriac.timetable.Timetable`.

    It cannot be edited: RabbitMQ changes nothing in one step but what one connection has for itself. All
    lines are written at every change, so a few hundred entries are what it is good for.

    Args:
        addresses: One broker, or several of which the first that answers is used.
        owner: Whose timetable it is.
    """

    def __init__(self, addresses: Sequence[Address], owner: str) -> None:
        self.address: str = "; ".join(address.shown for address in addresses)
        self._addresses = [
            msgspec.structs.replace(
                address, login=msgspec.structs.replace(address.login, heartbeat_seconds=_HEARTBEAT_SECONDS)
            )
            for address in addresses
        ]
        self._lock_name = f"celeriac.timetable.{owner}"
        # A classic one, whatever the default: a quorum queue throws away what was looked at often.
        self._queue = Queue(
            name=f"celeriac.lines.{owner}", arguments={"x-queue-type": "classic", "x-max-length": 1}
        )
        self._turn = threading.Condition(threading.Lock())
        self._link: Link | None = None  # while it is there, the exclusive queue may be ours
        self._holder = NOBODY
        self._term = 0
        self._looks = 0
        self._page = _Page(0, {})

    def lead(self) -> Lead:
        """See `celeriac.timetable.Timetable`; another leader's term changes whenever it is looked at."""
        with self._turn:
            if self._holder and self._is_ours():
                return Lead(self._holder, self._term, time.time())
            code = self._ask(topology.look_at_queue(self._lock_name), allowed=(_LOCKED, _NOT_FOUND))
            if code != _LOCKED:
                return Lead(NOBODY, self._term, 0.0)
            self._looks += 1
            return Lead(_ANOTHER, -self._looks, time.time())

    def take(self, holder: str, term: int, at: float) -> bool:
        """See `celeriac.timetable.Timetable`."""
        with self._turn:
            if term != self._term:
                return False
            if holder == NOBODY:
                self._let_go()
                return True
            if self._holder:
                if not self._is_ours():
                    return False
            else:
                exclusively: topology.Method = (
                    "queue.declare",
                    0,
                    self._lock_name,
                    False,
                    False,
                    True,
                    True,
                    False,
                    {},
                )
                if self._ask(exclusively, allowed=(_LOCKED,)) is not None:
                    return False
                self._page = self._read()
            self._holder = holder
            self._term += 1
            return True

    def changes(self, after: int) -> Changes:
        """See `celeriac.timetable.Timetable`."""
        with self._turn:
            page = self._page if self._holder else self._read()
        lines = {
            key: Line(value, revision)
            for key, (value, revision) in page.lines.items()
            if revision > after
        }  # fmt: skip
        return Changes(page.revision, lines)

    def write(self, lines: Mapping[str, bytes | None], term: int) -> bool:
        """See `celeriac.timetable.Timetable`."""
        with self._turn:
            if term != self._term or not self._holder or not self._is_ours():
                return False
            self._commit((), lines, _PATIENCE_SECONDS)
            return True

    def send(
        self, batch: Sequence[Outgoing], lines: Mapping[str, bytes | None], term: int, *, deadline: float
    ) -> None:
        """See `celeriac.timetable.SendsAlong`."""
        with self._turn:
            if term != self._term or not self._holder or not self._is_ours():
                raise TransportError(
                    f"Nothing was sent: another scheduler leads at {self.address}.", retryable=False
                )
            self._commit(batch, lines, deadline)

    def edit(self, key: str, value: bytes | None, revision: int) -> bool:
        """Refuse: it takes another store."""
        raise TransportError(
            "RabbitMQ keeps no schedule that can be changed from outside: set beat_store_url to a Redis "
            "server, a database (db+postgresql://…) or an SQLite file.",
            retryable=False,
        )

    def close(self) -> None:
        """See `celeriac.timetable.Timetable`; the lead ends with the connection."""
        with self._turn:
            self._let_go()

    def _commit(self, batch: Sequence[Outgoing], lines: Mapping[str, bytes | None], deadline: float) -> None:
        """Send messages and the page with these lines in one transaction, on the connection that leads."""
        link = self._link
        assert link is not None, "the lead is on it"
        revision = self._page.revision + 1
        kept = {**self._page.lines, **{key: (value, revision) for key, value in lines.items()}}
        page = _Page(revision, {key: line for key, line in kept.items() if line[0] is not None})
        envelope = Envelope(headers={}, body=_encode(page), properties=Props())
        messages = [*batch, Outgoing(envelope=envelope, routing_key=self._queue.name, queue=self._queue)]
        core = link.core
        # Declared each time: nobody tells us when somebody deletes a queue.
        methods = [
            method for one in messages if one.queue is not None for method in topology.declarations(one.queue)
        ]
        requests = [core.request(_TRANSACTIONS, "tx.select")]
        requests += [core.request(_TRANSACTIONS, *method) for method in methods]
        for one in messages:
            core.write(_frames_of(one, core.frame_max))
        requests.append(core.request(_TRANSACTIONS, "tx.commit"))
        try:
            link.await_all(requests, time.monotonic() + deadline)
        except Refused as exc:
            raise link.address.failure(exc) from exc
        except (Lost, TimeoutError) as exc:
            link.drop(Lost(str(exc)))
            self._let_go()
            failure = link.address.failure(exc)
            failure.retryable = False  # not by the next call: who leads then sees what was done
            raise failure from exc
        self._page = page

    def _let_go(self) -> None:
        if self._holder:
            self._term += 1  # nothing that we have not seen may be taken for ours, should we lead again
        link, self._link, self._holder = self._link, None, NOBODY
        if link is not None:
            link.close()

    def _is_ours(self) -> bool:
        """Ask whether the exclusive queue is there still, on the connection that has it."""
        link = self._link
        if (
            link is not None
            and link.alive
            and self._refusal(link, topology.look_at_queue(self._lock_name)) is None
        ):
            return True
        self._let_go()
        return False

    def _ask(self, method: topology.Method, allowed: Sequence[int]) -> int | None:
        """Ask something and return the code of a refusal that is allowed; None when it was not refused."""
        link = self._connected()
        refusal = self._refusal(link, method)
        if refusal is None:
            return None
        if refusal.code not in allowed:
            raise link.address.failure(refusal) from refusal
        return refusal.code

    def _refusal(self, link: Link, method: topology.Method) -> Refused | None:
        try:
            link.call(time.monotonic() + _PATIENCE_SECONDS, _CHANNEL, *method)
        except Refused as exc:
            return exc
        except (Lost, TimeoutError) as exc:
            link.drop(exc if isinstance(exc, Lost) else Lost(str(exc)))
            self._let_go()
            raise link.address.failure(exc) from exc
        return None

    def _read(self) -> _Page:
        """Return the newest page, and leave it where it is."""
        link = self._connected()
        until = time.monotonic() + _PATIENCE_SECONDS
        newest: Message | None = None
        try:
            for _ in range(_MOST_KEPT):
                answer = link.call(until, _CHANNEL, "basic.get", 0, self._queue.name, False)
                if not isinstance(answer, Message):
                    break
                newest = answer
            if newest is not None:
                link.send(frames.method(_CHANNEL, "basic.nack", newest.tag, True, True), until)
        except Refused as exc:
            if exc.code != _NOT_FOUND:
                raise link.address.failure(exc) from exc
        except (Lost, TimeoutError) as exc:
            raise link.address.failure(exc) from exc
        if newest is None:
            return _Page(0, {})
        try:
            return _decode(newest.body)
        except msgspec.MsgspecError as exc:
            raise DecodeError(
                f"queue {self._queue.name} of {self.address} holds no timetable: {exc}"
            ) from exc

    def _connected(self) -> Link:
        link = self._link
        if link is not None and link.glance():
            return link
        self._let_go()
        until = time.monotonic() + _PATIENCE_SECONDS
        *others, last = self._addresses
        for address in others:
            link = Link(address, self._turn, lambda event: None)
            with contextlib.suppress(BrokerUnreachable):  # the last one tells
                link.connect(until)
                self._link = link
                return link
        link = Link(last, self._turn, lambda event: None)
        link.connect(until)
        self._link = link
        return link


def _frames_of(outgoing: Outgoing, frame_max: int) -> bytes:
    """Return the frames that publish a message."""
    envelope = outgoing.envelope
    address = (outgoing.exchange, outgoing.routing_key)
    head = frames.method(_TRANSACTIONS, "basic.publish", 0, *address, False, False)
    return head + frames.content(_TRANSACTIONS, encode_properties(envelope), envelope.body, frame_max)
