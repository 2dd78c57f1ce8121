"""Messages of the embedded broker that take turns by a key. Every function runs in the caller's transaction.

They wait in `keyed`, the others of their queue in `ready`; where there are none, nothing is kept for them.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from celeriac import rounds

_DUE_AT_ONCE = 1000  # some 10 ms
KEYED = 4  # beside the other flags of a message: it has a key


class Head(NamedTuple):
    """What is served next of one priority of a queue."""

    rank: int
    keyed: tuple[int, int] | None  # round and number of the last message with a key; None when there is none
    plain: int  # how many of those without a key


def join(connection: sqlite3.Connection, queue: str, rank: int, key: str, row: tuple[int, int, int]) -> None:
    """Put a message with a key into line.

    Args:
        connection: In a transaction.
        queue: Where to.
        rank: Of its priority.
        key: What it takes turns by.
        row: Its number, how many consumers have had it, and its flags.
    """
    last = connection.execute(
        "SELECT last FROM rounds WHERE queue = ? AND rank = ? AND key = ?", (queue, rank, key)
    ).fetchone()
    number = rounds.join(_state(connection, queue, rank)[0], last and last[0])
    connection.execute(
        "INSERT INTO rounds (queue, rank, key, last) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (queue, rank, key) DO UPDATE SET last = excluded.last",
        (queue, rank, key, number),
    )
    connection.execute(
        "INSERT INTO keyed (queue, rank, round, id, handed, flags) VALUES (?, ?, ?, ?, ?, ?)",
        (queue, rank, number, *row),
    )


def join_due(connection: sqlite3.Connection, queue: str, now: float) -> None:
    """Put some of those into line whose time has come (epoch seconds); the rest is for the next call."""
    found = connection.execute(
        "SELECT p.due, p.rank, m.fair_key, p.id, p.handed, p.flags FROM parked p "
        "JOIN messages m ON m.id = p.id WHERE p.queue = ? AND p.due <= ? AND p.flags & ? "
        "ORDER BY p.due, p.id LIMIT ?",
        (queue, now, KEYED, _DUE_AT_ONCE),
    ).fetchall()
    for due, rank, key, number, handed, flags in found:
        join(connection, queue, rank, key, (number, handed, flags))
        connection.execute("DELETE FROM parked WHERE queue = ? AND due = ? AND id = ?", (queue, due, number))


def serve(connection: sqlite3.Connection, queue: str, limit: int) -> Head | None:
    """Say what is served next, of the highest priority that something waits with, and count it as served.

    Args:
        connection: In a transaction; what is said is to be taken in the same one.
        queue: Of which there are messages with a key.
        limit: The most messages.
    """
    rank: int | None = connection.execute(
        "SELECT min(rank) FROM (SELECT min(rank) AS rank FROM keyed WHERE queue = ? "
        "UNION ALL SELECT min(rank) FROM ready WHERE queue = ?)",
        (queue, queue),
    ).fetchone()[0]
    if rank is None:
        return None
    place = (queue, rank)
    waiting: list[tuple[int, int]] = connection.execute(
        "SELECT round, id FROM keyed WHERE queue = ? AND rank = ? ORDER BY round, id LIMIT ?", (*place, limit)
    ).fetchall()
    others: int = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM ready WHERE queue = ? AND rank = ? LIMIT ?)", (*place, limit)
    ).fetchone()[0]
    if not waiting:
        return Head(rank, None, others)
    choice = rounds.next_ones(*_state(connection, *place), [number for number, _ in waiting], others, limit)
    connection.execute(
        "INSERT INTO lines (queue, rank, now, plain) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (queue, rank) DO UPDATE SET now = excluded.now, plain = excluded.plain",
        (*place, choice.now, choice.last),
    )
    connection.execute("DELETE FROM rounds WHERE queue = ? AND rank = ? AND last < ?", (*place, choice.now))
    return Head(rank, waiting[choice.keyed - 1] if choice.keyed else None, choice.plain)


def forget_if_empty(connection: sqlite3.Connection, queue: str, rank: int) -> None:
    """Forget who has had how many, when no more messages with a key wait."""
    place = (queue, rank)
    left = connection.execute("SELECT 1 FROM keyed WHERE queue = ? AND rank = ? LIMIT 1", place).fetchone()
    if left is None:
        connection.execute("DELETE FROM rounds WHERE queue = ? AND rank = ?", place)
        connection.execute("DELETE FROM lines WHERE queue = ? AND rank = ?", place)


def purge(connection: sqlite3.Connection, queue: str) -> None:
    """Forget all messages with a key; those themselves are the caller's to remove."""
    for table in ("keyed", "rounds", "lines"):
        connection.execute(f"DELETE FROM {table} WHERE queue = ?", (queue,))  # noqa: S608 - of the names above


def _state(connection: sqlite3.Connection, queue: str, rank: int) -> tuple[int, int | None]:
    row = connection.execute(
        "SELECT now, plain FROM lines WHERE queue = ? AND rank = ?", (queue, rank)
    ).fetchone()
    return (0, None) if row is None else (row[0], row[1])
