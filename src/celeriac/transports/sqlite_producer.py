"""Publishing to the embedded broker: one transaction for everything that is waiting to be sent."""

from __future__ import annotations

import importlib
import os
import sqlite3
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from celeriac.clock import Clock
from celeriac.errors import PublishTimeout, TransportError
from celeriac.message import Once, Outgoing
from celeriac.net.doorbell import Ringer
from celeriac.queues import Queue
from celeriac.rounds import FAIR_KEY_HEADER, fair_key
from celeriac.transports import sqlite_rounds as rounds
from celeriac.transports import sqlite_routes as routes
from celeriac.transports.blob import pack
from celeriac.transports.sqlite_file import Handle, Location, unused_bytes
from celeriac.transports.terms import HIGHEST_PRIORITY, terms_of

if TYPE_CHECKING:
    from celeriac.net.lane import Lane

# Not in the file's schema: only who sends periodic tasks needs it.
_SENT_ONCE = "CREATE TABLE IF NOT EXISTS sent_once (row TEXT PRIMARY KEY, number REAL NOT NULL) WITHOUT ROWID"
MESSAGES = "q"  # the kind of bell that consumers hang up


class _Ticket:
    """One call of `send`, waiting for whoever commits next."""

    __slots__ = ("batch", "blobs", "commit", "error")

    def __init__(self, batch: Sequence[Outgoing]) -> None:
        self.batch = batch
        self.blobs = [pack(outgoing.envelope) for outgoing in batch]
        self.commit: int | None = None  # the number of the commit that has it
        self.error: Exception | None = None


class SqliteProducer:
    """Publishes; several threads that send at once share one commit, and so one wait for the disk.

    Args:
        location: The broker's file.
        handle: A connection of the producer's own.
        reserve_bytes: Of the disk, left for workers: without room to settle in nothing would ever come free.
        clock: What tells which messages are to come later.
    """

    def __init__(self, location: Location, handle: Handle, reserve_bytes: int, clock: Clock) -> None:
        self._reserve_bytes = reserve_bytes
        self._clock = clock
        self._location = location
        self._handle = handle
        self._declared: dict[str, Queue] = {}
        self._lane: Lane | None = None
        self._ringer = Ringer(self._location.bells)
        self._begin_process()

    def send(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """Return when the batch is committed; see `celeriac.ports.Producer`."""
        if self._pid != os.getpid():
            self._begin_process()
        ticket = _Ticket(batch)
        self._waiting.append(ticket)
        self._flush(ticket, time.monotonic() + deadline)

    async def asend(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """Do the same on the producer's own thread."""
        if self._pid != os.getpid():
            self._begin_process()
        ticket = _Ticket(batch)
        self._waiting.append(ticket)
        await self._own_lane().run(self._flush, ticket, time.monotonic() + deadline)

    def close(self) -> None:
        """Close the connection; sending afterwards opens another one."""
        lane, self._lane = self._lane, None
        if lane is not None and self._pid == os.getpid():
            lane.close()
        self._handle.close()
        self._ringer.close()

    def _own_lane(self) -> Lane:
        if self._lane is None:  # asyncio is half of what a client would have to load, and few use it
            self._lane = importlib.import_module("celeriac.net.lane").Lane("celeriac-sqlite-producer")
        lane: Lane = self._lane
        return lane

    def _begin_process(self) -> None:
        # A forked child has neither the parent's thread nor a business with what the parent was sending.
        self._pid = os.getpid()
        self._waiting: deque[_Ticket] = deque()
        self._lane = None
        self._ringer.close()
        self._ringer = Ringer(self._location.bells)

    def _flush(self, mine: _Ticket, give_up_at: float) -> None:
        """Commit everything that waits, unless somebody has committed ours by the time it is our turn."""
        if not self._handle.exclusively(give_up_at - time.monotonic()):
            self._withdraw(mine)
            raise self._timeout()
        try:
            tickets = [] if mine.commit or mine.error else self._take(mine)
            if tickets:
                self._commit(tickets, mine, give_up_at)
        finally:
            self._handle.release()
        if tickets:
            self._ringer.ring(MESSAGES)  # they need not wait for the disk as well
        if mine.error is not None:
            raise mine.error
        self._handle.sync(mine.commit or 0)

    def _take(self, mine: _Ticket) -> list[_Ticket]:
        tickets = []
        while self._waiting:
            tickets.append(self._waiting.popleft())
        if mine not in tickets:
            tickets.append(mine)
        return tickets

    def _withdraw(self, ticket: _Ticket) -> None:
        try:
            self._waiting.remove(ticket)
        except ValueError:  # somebody is sending it just now
            return

    def _commit(self, tickets: list[_Ticket], mine: _Ticket, give_up_at: float) -> None:
        declared: dict[str, Queue] = {}
        try:
            self._check_disk()
            self._handle.write(
                lambda connection: self._insert(connection, tickets, declared), give_up_at - time.monotonic()
            )
        except TimeoutError:
            self._waiting.extendleft(ticket for ticket in reversed(tickets) if ticket is not mine)
            raise self._timeout() from None
        except Exception as exc:
            self._declared.clear()  # it may be another file that is opened next
            for ticket in tickets:
                ticket.error = exc
            raise
        self._declared.update(declared)
        for ticket in tickets:
            ticket.commit = self._handle.commits

    def _check_disk(self) -> None:
        """See that the file is still the one that others use, and that it may grow."""
        if self._handle.reopen_if_replaced():
            self._declared.clear()
        free = self._handle.free_bytes()
        if free < self._reserve_bytes and free + self._handle.read(unused_bytes) < self._reserve_bytes:
            raise TransportError(
                f"Nothing was sent: the disk of the embedded broker's file {self._location.path} has only "
                f"{free / 1e6:.1f} MB left, which are kept for workers to go on with (reserve_bytes). "
                "Free some space, or wait until they have worked off some messages."
            )

    def _insert(
        self, connection: sqlite3.Connection, tickets: Sequence[_Ticket], declared: dict[str, Queue]
    ) -> None:
        """Write the messages of all tickets; one that cannot be routed fails alone."""
        newest = connection.execute("SELECT max(id) FROM messages").fetchone()[0] or 0
        rows = _Rows(newest, self._clock.time())
        for ticket in tickets:
            mark = rows.mark()
            try:
                for outgoing, blob in zip(ticket.batch, ticket.blobs, strict=True):
                    self._declare(connection, outgoing.queue, declared)
                    rows.add(connection, outgoing, blob)
            except TransportError as exc:
                rows.cut(mark)
                ticket.error = exc
        rows.insert(connection)

    def _declare(
        self, connection: sqlite3.Connection, queue: Queue | None, declared: dict[str, Queue]
    ) -> None:
        if queue is None:
            return
        known = declared.get(queue.name) or self._declared.get(queue.name)
        if known is queue or known == queue:
            return
        routes.declare(connection, queue, final=False)
        declared[queue.name] = queue

    def _timeout(self) -> PublishTimeout:
        return PublishTimeout(
            f"Nothing was sent: others kept the embedded broker's file {self._location.path} locked for the "
            "whole publish timeout."
        )


class _Rows:
    """The rows of one transaction."""

    def __init__(self, newest: int, now: float) -> None:
        self._next = newest + 1
        self._now = now
        self._arguments: dict[str, routes.Arguments] = {}
        self._messages: list[tuple[int, str | None, str | None, float | None, bytes, str | None]] = []
        self._ready: list[tuple[str, int, int]] = []
        self._parked: list[tuple[str, float, int, int, int]] = []
        self._keyed: list[tuple[str, int, str, int]] = []

    def mark(self) -> tuple[int, int, int, int, int]:
        """Return where the rows end now."""
        return self._next, len(self._messages), len(self._ready), len(self._parked), len(self._keyed)

    def cut(self, mark: tuple[int, int, int, int, int]) -> None:
        """Drop the rows behind a mark."""
        self._next = mark[0]
        del self._messages[mark[1] :]
        del self._ready[mark[2] :]
        del self._parked[mark[3] :]
        del self._keyed[mark[4] :]

    def add(self, connection: sqlite3.Connection, outgoing: Outgoing, blob: bytes) -> None:
        """Add one message, once for each queue that it goes to; none that was sent before, if that counts."""
        if outgoing.once is not None and not _is_next(connection, outgoing.once):
            return
        exchange, headers = outgoing.exchange, outgoing.envelope.headers
        fair = fair_key(headers) if FAIR_KEY_HEADER in headers else None
        if exchange:
            names = routes.targets(connection, exchange, outgoing.routing_key, headers)
        else:
            names = [outgoing.routing_key]
        for name in names:
            arguments = self._arguments.get(name)
            if arguments is None:
                arguments = self._arguments_of(connection, name, outgoing.queue)
            terms = terms_of(outgoing.envelope, arguments, self._now)
            rank = HIGHEST_PRIORITY - terms.priority
            number, self._next = self._next, self._next + 1
            key = outgoing.routing_key if exchange else None
            self._messages.append((number, exchange or None, key, terms.expires_at, blob, fair))
            if outgoing.not_before is not None and outgoing.not_before > self._now:
                flags = 0 if fair is None else rounds.KEYED
                self._parked.append((name, outgoing.not_before, number, rank, flags))
            elif fair is not None:
                self._keyed.append((name, rank, fair, number))
            else:
                self._ready.append((name, rank, number))

    def insert(self, connection: sqlite3.Connection) -> None:
        """Write all rows."""
        connection.executemany(
            "INSERT INTO messages (id, exchange, routing_key, expires, blob, fair_key) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            self._messages,
        )
        connection.executemany(
            "INSERT INTO ready (queue, rank, id, handed, flags) VALUES (?, ?, ?, 0, 0)", self._ready
        )
        connection.executemany(
            "INSERT INTO parked (queue, due, id, rank, handed, flags) VALUES (?, ?, ?, ?, 0, ?)", self._parked
        )
        for name, rank, key, number in self._keyed:
            rounds.join(connection, name, rank, key, (number, 0, rounds.KEYED))

    def _arguments_of(
        self, connection: sqlite3.Connection, name: str, queue: Queue | None
    ) -> routes.Arguments:
        found = routes.arguments_of(connection, name)
        if found is None:  # nobody has declared it, or it was deleted since
            declared = queue if queue is not None and queue.name == name else Queue(name=name)
            routes.declare(connection, declared, final=False)
            found = declared.arguments
        self._arguments[name] = found
        return found


def _is_next(connection: sqlite3.Connection, once: Once) -> bool:
    """Return whether a number is greater than the last one of its row, and note it.

    Of a ticket that then fails because a message of it cannot be routed it stays noted: nobody can send that
    one anywhere.
    """
    connection.execute(_SENT_ONCE)
    found = connection.execute(
        "INSERT INTO sent_once (row, number) VALUES (?, ?) ON CONFLICT (row) DO UPDATE "
        "SET number = excluded.number WHERE number < excluded.number",
        (once.row, once.number),
    )
    return found.rowcount == 1
