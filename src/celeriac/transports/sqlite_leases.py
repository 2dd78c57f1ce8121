"""Who holds which message in the embedded broker's file. Every function runs in the caller's transaction.

A message is always in exactly one of `ready`, `keyed`, `parked`, `leases` and `dead`. A lease belongs to an
owner, one registration of one consumer; when the owner's row is gone, its leases have gone with it and
whatever it still does to them is refused. That makes the owner's number the fencing token.
"""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from celeriac.errors import TransportError
from celeriac.message import Ack, DeadLetter, Park, Reject, Requeue, Start, Verdict
from celeriac.transports import sqlite_rounds as rounds
from celeriac.transports import sqlite_routes as routes
from celeriac.transports.blob import unpack_or_defect
from celeriac.transports.terms import dead_letter_address

REDELIVERED = 1
LOST = 2

Row = tuple[int, int, int, int, bytes, str | None, str | None, float | None]


_PLAIN: Final = (
    "SELECT r.rank, r.id, r.handed, r.flags, m.blob, m.exchange, m.routing_key, m.expires "
    "FROM ready r JOIN messages m ON m.id = r.id WHERE r.queue = ? "
)
_PLAIN_OF_ALL: Final = _PLAIN + "ORDER BY r.rank, r.id LIMIT ?"
_PLAIN_OF_RANK: Final = _PLAIN + "AND r.rank = ? ORDER BY r.id LIMIT ?"


class Claimed(NamedTuple):
    """A leased message as it is in the file."""

    id: int
    queue: str
    handed: int
    flags: int
    blob: bytes
    exchange: str | None
    routing_key: str | None


@functools.cache
def boot_id() -> str:
    """Return what is different after every start of the machine: leases of an earlier one are void."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else "unknown"


def register(connection: sqlite3.Connection, node: str, expires: float, bell: str | None) -> int:
    """Make a new owner and return its number; ``expires`` is on the machine's monotonic clock.

    That is the same for all processes of the machine, nobody sets it, and it begins anew with every boot.
    """
    row = connection.execute(
        "INSERT INTO owners (node, boot, expires, bell) VALUES (?, ?, ?, ?) RETURNING id",
        (node, boot_id(), expires, bell),
    ).fetchone()
    owner: int = row[0]
    return owner


def renew(connection: sqlite3.Connection, owner: int, expires: float) -> bool:
    """Extend the leases of an owner; False when it has been taken for dead."""
    changed = connection.execute("UPDATE owners SET expires = ? WHERE id = ?", (expires, owner))
    return changed.rowcount == 1


def is_alive(connection: sqlite3.Connection, owner: int) -> bool:
    """Return whether an owner still holds its leases."""
    return connection.execute("SELECT 1 FROM owners WHERE id = ?", (owner,)).fetchone() is not None


def dead_owners(
    connection: sqlite3.Connection, me: int, now: float, hangs: Callable[[str], bool]
) -> list[int]:
    """Return the owners whose lease has run out, whose machine was restarted, or whose bell is orphaned.

    Args:
        connection: In a transaction, or not.
        me: An owner that is certainly alive.
        now: The machine's monotonic clock.
        hangs: Returns whether somebody holds a bell.
    """
    rows = connection.execute("SELECT id, boot, expires, bell FROM owners WHERE id <> ?", (me,)).fetchall()
    return [
        owner
        for owner, boot, expires, bell in rows
        if boot != boot_id() or expires < now or (bell is not None and not hangs(bell))
    ]


def give_back(connection: sqlite3.Connection, owner: int, *, died: bool) -> int:
    """End an owner and put what it held back into line; return how many messages that were.

    What it had started is marked as lost; the rest comes as redelivered when it died, and as if it had
    never been taken when it left in good order.
    """
    connection.execute(
        "INSERT INTO ready (queue, rank, id, handed, flags) "
        "SELECT queue, rank, id, handed - iif(started OR ?, 0, 1), flags | iif(started, 3, iif(?, 1, 0)) "
        "FROM leases WHERE owner = ?",
        (died, died, owner),
    )
    count = connection.execute("DELETE FROM leases WHERE owner = ?", (owner,)).rowcount
    connection.execute("DELETE FROM owners WHERE id = ?", (owner,))
    routes.unconsume(connection, owner)
    return count


def look(connection: sqlite3.Connection, queues: Sequence[str], now: float) -> tuple[bool, float | None]:
    """Return whether a claim would find something, and if not, when the next parked message is due.

    Args:
        connection: In a transaction, or not.
        queues: Where to look.
        now: Epoch seconds.
    """
    for queue in queues:
        for table in ("ready", "keyed"):
            query = f"SELECT 1 FROM {table} WHERE queue = ? LIMIT 1"  # noqa: S608 - of the names above
            if connection.execute(query, (queue,)).fetchone():
                return True, None
    due = next_due(connection, queues)
    return due is not None and due <= now, due


def next_due(connection: sqlite3.Connection, queues: Sequence[str]) -> float | None:
    """Return when the next parked message of these queues is due (epoch seconds)."""
    moments = [
        connection.execute("SELECT min(due) FROM parked WHERE queue = ?", (queue,)).fetchone()[0]
        for queue in queues
    ]
    return min((moment for moment in moments if moment is not None), default=None)


def claim(
    connection: sqlite3.Connection, owner: int, queues: Sequence[str], limit: int, now: float
) -> list[Claimed]:
    """Lease up to ``limit`` messages: an equal share of each queue, then more from those that have more.

    Args:
        connection: In a transaction.
        owner: Who gets them.
        queues: Whose turn it is, in this order.
        limit: The most messages.
        now: Epoch seconds.
    """
    found: list[Claimed] = []
    full = list(queues)
    while full and len(found) < limit:
        still_full = []
        for place, queue in enumerate(full):
            share = -(-(limit - len(found)) // (len(full) - place))
            if share == 0:
                break
            got, more = _claim_from(connection, owner, queue, share, now)
            found.extend(got)
            if more:
                still_full.append(queue)
        full = still_full
    return found


def _claim_from(
    connection: sqlite3.Connection, owner: int, queue: str, limit: int, now: float
) -> tuple[list[Claimed], bool]:
    """Lease the head of one queue's line; tell also whether there may be more."""
    due = (queue, now)
    if connection.execute("SELECT 1 FROM parked WHERE queue = ? AND due <= ? LIMIT 1", due).fetchone():
        rounds.join_due(connection, queue, now)
        connection.execute(
            "INSERT INTO ready (queue, rank, id, handed, flags) "
            "SELECT queue, rank, id, handed, flags FROM parked "
            "WHERE queue = ? AND due <= ? AND NOT flags & ?",
            (*due, rounds.KEYED),
        )
        connection.execute(
            "DELETE FROM parked WHERE queue = ? AND due <= ? AND NOT flags & ?", (*due, rounds.KEYED)
        )
    if connection.execute("SELECT 1 FROM keyed WHERE queue = ? LIMIT 1", (queue,)).fetchone():
        rows = _lease_in_turn(connection, owner, queue, limit)
    else:
        rows = _lease_plain(connection, owner, queue, limit)
    more = len(rows) == limit
    stale = [row[1] for row in rows if row[7] is not None and row[7] <= now]
    if stale:
        remove(connection, stale)
        gone = set(stale)
        rows = [row for row in rows if row[1] not in gone]
    return [Claimed(row[1], queue, row[2] + 1, row[3], row[4], row[5], row[6]) for row in rows], more


def _lease_plain(
    connection: sqlite3.Connection, owner: int, queue: str, limit: int, rank: int | None = None
) -> list[Row]:
    """Lease the first messages that have no key, of one rank only when it is given."""
    if rank is None:
        found = connection.execute(_PLAIN_OF_ALL, (queue, limit))
    else:
        found = connection.execute(_PLAIN_OF_RANK, (queue, rank, limit))
    rows: list[Row] = found.fetchall()
    # What was read is the head of the line, so each rank of it is one range: three statements for the
    # usual batch of one priority, however large it is.
    for its_rank, of_rank in itertools.groupby(rows, key=lambda row: row[0]):
        *_, last = of_rank
        head = (queue, its_rank, last[1])
        connection.execute(
            "INSERT INTO leases (id, owner, queue, rank, handed, flags) "
            "SELECT id, ?, queue, rank, handed + 1, flags FROM ready "
            "WHERE queue = ? AND rank = ? AND id <= ?",
            (owner, *head),
        )
        connection.execute("DELETE FROM ready WHERE queue = ? AND rank = ? AND id <= ?", head)
    return rows


def _lease_in_turn(connection: sqlite3.Connection, owner: int, queue: str, limit: int) -> list[Row]:
    """Lease what is served next of a queue where messages have keys."""
    rows: list[Row] = []
    while len(rows) < limit and (head := rounds.serve(connection, queue, limit - len(rows))) is not None:
        if head.keyed is not None:
            rows += _lease_keyed(connection, owner, queue, head.rank, head.keyed)
        if head.plain:
            rows += _lease_plain(connection, owner, queue, head.plain, head.rank)
        rounds.forget_if_empty(connection, queue, head.rank)
    return rows


def _lease_keyed(
    connection: sqlite3.Connection, owner: int, queue: str, rank: int, last: tuple[int, int]
) -> list[Row]:
    """Lease the messages with a key up to the one of this round and number."""
    head = (queue, rank, *last)
    rows: list[Row] = connection.execute(
        "SELECT k.rank, k.id, k.handed, k.flags, m.blob, m.exchange, m.routing_key, m.expires FROM keyed k "
        "JOIN messages m ON m.id = k.id WHERE k.queue = ? AND k.rank = ? AND (k.round, k.id) <= (?, ?) "
        "ORDER BY k.round, k.id",
        head,
    ).fetchall()
    connection.execute(
        "INSERT INTO leases (id, owner, queue, rank, handed, flags) "
        "SELECT id, ?, queue, rank, handed + 1, flags FROM keyed "
        "WHERE queue = ? AND rank = ? AND (round, id) <= (?, ?)",
        (owner, *head),
    )
    connection.execute("DELETE FROM keyed WHERE queue = ? AND rank = ? AND (round, id) <= (?, ?)", head)
    return rows


def remove(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Remove leased messages for good."""
    for first, last in _runs(ids):
        connection.execute("DELETE FROM leases WHERE id BETWEEN ? AND ?", (first, last))
        connection.execute("DELETE FROM messages WHERE id BETWEEN ? AND ?", (first, last))


def _runs(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Return the ids as ranges without gaps: a batch that was claimed together is mostly one."""
    runs: list[tuple[int, int]] = []
    for number in sorted(ids):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def settle(connection: sqlite3.Connection, verdicts: Sequence[tuple[int, Verdict]]) -> bool:
    """Carry out verdicts on leases that are certainly held; return whether something came back into line.

    Dead letters are the business of `sqlite_graveyard.bury`, before this.
    """
    done: list[int] = []
    started: list[tuple[int]] = []
    returned = False
    for number, verdict in verdicts:
        match verdict:
            case Ack():
                done.append(number)
            case Start():
                started.append((number,))
            case Reject():
                returned = _dead_letter_exchange(connection, number) or returned
                done.append(number)
            case Requeue():
                _requeue(connection, number, verdict)
                returned = True
            case Park(until=until):
                _park(connection, number, until)
                returned = True
            case DeadLetter():
                pass
    if started:
        connection.executemany("UPDATE leases SET started = 1 WHERE id = ?", started)
    remove(connection, done)
    return returned


def _requeue(connection: sqlite3.Connection, number: int, verdict: Requeue) -> None:
    if verdict.untouched:
        connection.execute(
            "INSERT INTO ready (queue, rank, id, handed, flags) "
            "SELECT queue, rank, id, handed - 1, flags FROM leases WHERE id = ?",
            (number,),
        )
        connection.execute("DELETE FROM leases WHERE id = ?", (number,))
        return
    # A new number puts it behind its equals, or a task that refuses itself would starve them.
    row = connection.execute(
        "INSERT INTO messages (exchange, routing_key, expires, blob, fair_key) "
        "SELECT exchange, routing_key, expires, blob, fair_key FROM messages WHERE id = ? "
        "RETURNING id, fair_key",
        (number,),
    ).fetchone()
    queue, rank, handed, flags = connection.execute(
        "SELECT queue, rank, iif(?, 1, handed), flags | 1 FROM leases WHERE id = ?", (verdict.willing, number)
    ).fetchone()
    put(connection, queue, rank, row[1], (row[0], handed, flags))
    remove(connection, [number])


def put(
    connection: sqlite3.Connection, queue: str, rank: int, key: str | None, row: tuple[int, int, int]
) -> None:
    """Put a message at the end of the line; see `sqlite_rounds.join`, also for one without a key."""
    if key is not None:
        rounds.join(connection, queue, rank, key, row)
        return
    connection.execute(
        "INSERT INTO ready (queue, rank, id, handed, flags) VALUES (?, ?, ?, ?, ?)", (queue, rank, *row)
    )


def _park(connection: sqlite3.Connection, number: int, until: float) -> None:
    connection.execute(
        "INSERT INTO parked (queue, due, id, rank, handed, flags) "
        "SELECT queue, ?, id, rank, handed - 1, flags FROM leases WHERE id = ?",
        (until, number),
    )
    connection.execute("DELETE FROM leases WHERE id = ?", (number,))


def _dead_letter_exchange(connection: sqlite3.Connection, number: int) -> bool:
    """Copy a refused message to its queue's dead-letter exchange; False when nobody gets it there."""
    queue, rank, exchange, key, blob = connection.execute(
        "SELECT l.queue, l.rank, m.exchange, coalesce(m.routing_key, l.queue), m.blob "
        "FROM leases l JOIN messages m ON m.id = l.id WHERE l.id = ?",
        (number,),
    ).fetchone()
    arguments: Mapping[str, Any] = routes.arguments_of(connection, queue) or {}  # Any: the broker's own
    address = dead_letter_address(arguments, key)
    if address is None:
        return False
    exchange, key = address
    try:
        names = routes.targets(connection, exchange, key, unpack_or_defect(blob)[0].headers)
    except TransportError:  # RabbitMQ drops it then as well
        return False
    for name in names:
        row = connection.execute(
            "INSERT INTO messages (exchange, routing_key, blob) VALUES (?, ?, ?) RETURNING id",
            (exchange or None, key, blob),
        ).fetchone()
        connection.execute(
            "INSERT INTO ready (queue, rank, id, handed, flags) VALUES (?, ?, ?, 0, 0)", (name, rank, row[0])
        )
    return bool(names)
