"""The dead letters in the embedded broker's file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from celeriac.errors import TransportError
from celeriac.letters import EVERYTHING, Letter, Wanted, matches
from celeriac.message import DeadLetter, Verdict
from celeriac.net.doorbell import Ringer
from celeriac.transports import sqlite_leases as leases
from celeriac.transports import sqlite_rounds as rounds
from celeriac.transports.blob import unpack_or_defect
from celeriac.transports.sqlite_file import Handle, Location
from celeriac.transports.sqlite_producer import MESSAGES

T = TypeVar("T")

_AT_ONCE = 500  # rows in one read: a long list with large bodies is never in memory as a whole

_Row = tuple[int, str, int, str, str, float, str | None, str | None, bytes]


def bury(
    connection: sqlite3.Connection, verdicts: Sequence[tuple[int, Verdict]], node: str, most: int
) -> None:
    """Keep the leased messages that are given up, and drop the oldest of a queue that has too many.

    Args:
        connection: In the caller's transaction.
        verdicts: Verdicts on leases that are certainly held; those of other kinds are stepped over.
        node: Who gives up.
        most: How many letters a queue keeps.
    """
    queues: set[str] = set()
    for number, verdict in verdicts:
        if isinstance(verdict, DeadLetter):
            rows = connection.execute(
                "INSERT INTO dead (id, queue, rank, handed, reason, at, kind, node) "
                "SELECT id, queue, rank, handed, ?, ?, ?, ? FROM leases WHERE id = ? RETURNING queue",
                (verdict.reason, time.time(), verdict.kind, node, number),
            ).fetchall()
            queues.update(row[0] for row in rows)
            connection.execute("DELETE FROM leases WHERE id = ?", (number,))
    for queue in queues:
        surplus = connection.execute(
            "SELECT id FROM dead WHERE queue = ? ORDER BY at DESC, id DESC LIMIT -1 OFFSET ?", (queue, most)
        ).fetchall()
        for table in ("dead", "messages"):
            connection.executemany(f"DELETE FROM {table} WHERE id = ?", surplus)  # noqa: S608 - ours


class SqliteGraveyard:
    """Finds, retries and removes dead letters; a letter's id is its message's number in the file.

    Args:
        location: The broker's file.
        handle: A connection to it, its owner's to close.
        wait_seconds: How long to wait for the file's lock.
    """

    def __init__(self, location: Location, handle: Handle, wait_seconds: float) -> None:
        self._location = location
        self._handle = handle
        self._wait_seconds = wait_seconds

    def find(self, queue: str, wanted: Wanted = EVERYTHING, limit: int = 100) -> list[Letter]:
        """See `celeriac.ports.Graveyard`."""
        found: list[Letter] = []
        last: tuple[float, int] | None = None
        while len(found) < limit:
            rows = self._page(queue, last)
            letters = [_letter(queue, row) for row in rows]
            found.extend(letter for letter in letters if matches(letter, wanted))
            if len(rows) < _AT_ONCE:
                break
            last = rows[-1][5], rows[-1][0]
        return found[:limit]

    def retry(self, queue: str, ids: Collection[str]) -> list[str]:
        """See `celeriac.ports.Graveyard`; all of them are moved in one transaction."""

        def work(connection: sqlite3.Connection) -> list[str]:
            moved = _exhume(connection, queue, ids)
            for number, rank in moved:
                # A new number puts it behind those that wait.
                row = connection.execute(
                    "INSERT INTO messages (exchange, routing_key, expires, blob, fair_key) "
                    "SELECT exchange, routing_key, NULL, blob, fair_key FROM messages WHERE id = ? "
                    "RETURNING id, fair_key",
                    (number,),
                ).fetchone()
                connection.execute("DELETE FROM messages WHERE id = ?", (number,))
                flags = 0 if row[1] is None else rounds.KEYED
                leases.put(connection, queue, rank, row[1], (row[0], 0, flags))
            return [str(number) for number, _ in moved]

        moved = self._write(work, f"Dead letters of queue {queue!r} were not sent again")
        if moved:
            ringer = Ringer(self._location.bells)
            ringer.ring(MESSAGES)
            ringer.close()
        return moved

    def purge(self, queue: str, ids: Collection[str]) -> list[str]:
        """See `celeriac.ports.Graveyard`."""

        def work(connection: sqlite3.Connection) -> list[str]:
            removed = _exhume(connection, queue, ids)
            connection.executemany("DELETE FROM messages WHERE id = ?", [(number,) for number, _ in removed])
            return [str(number) for number, _ in removed]

        return self._write(work, f"Dead letters of queue {queue!r} were not purged")

    def _page(self, queue: str, last: tuple[float, int] | None) -> list[_Row]:
        at, number = last or (float("inf"), 0)
        rows: list[_Row] = self._handle.read(
            lambda connection: connection.execute(
                "SELECT d.id, d.kind, d.handed, d.reason, d.node, d.at, m.exchange, m.routing_key, "
                "m.blob FROM dead d JOIN messages m ON m.id = d.id "
                "WHERE d.queue = ? AND (d.at, d.id) < (?, ?) ORDER BY d.at DESC, d.id DESC LIMIT ?",
                (queue, at, number, _AT_ONCE),
            ).fetchall()
        )
        return rows

    def _write(self, work: Callable[[sqlite3.Connection], T], failure: str) -> T:
        try:
            return self._handle.write(work, self._wait_seconds)
        except TimeoutError as exc:
            raise TransportError(f"{failure}: {exc}") from exc


def _exhume(connection: sqlite3.Connection, queue: str, ids: Collection[str]) -> list[tuple[int, int]]:
    """Take letters off the list; return number and rank of their messages, the oldest first."""
    moved: list[tuple[int, int]] = []
    for number in sorted(int(id_) for id_ in ids if id_.isdecimal()):
        moved += connection.execute(
            "DELETE FROM dead WHERE id = ? AND queue = ? RETURNING id, rank", (number, queue)
        ).fetchall()
    return moved


def _letter(queue: str, row: _Row) -> Letter:
    number, kind, handed, reason, node, at, exchange, routing_key, blob = row
    return Letter(
        id=str(number),
        queue=queue,
        kind=kind,
        reason=reason,
        at=at,
        node=node,
        attempt=handed,
        exchange=exchange or "",
        routing_key=queue if routing_key is None else routing_key,
        envelope=unpack_or_defect(blob)[0],
    )
