"""Parts of chords in an SQLite file; each function runs in a transaction of its caller."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from celeriac.message import Part


def add_parts(
    connection: sqlite3.Connection, chord_id: str, parts: Sequence[Part], expires: float
) -> str | None:
    """Note parts of a chord, each once, whatever is known of it already.

    Args:
        connection: In a transaction.
        chord_id: The chord of all these parts.
        parts: At least one.
        expires: When they may be thrown away; epoch seconds.

    Returns:
        The task that has completed the chord, if that is one of these, now or when it came before.
    """
    fresh = connection.executemany(
        "INSERT INTO chord_parts (chord, task, position, payload, expires) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (chord, task) DO UPDATE SET position = excluded.position, payload = excluded.payload "
        "WHERE chord_parts.payload = x''",  # awaited
        [(chord_id, part.task_id, part.index, part.payload, expires) for part in parts],
    )
    if fresh.rowcount:
        connection.execute(
            "INSERT INTO chords (id, size, expires, arrived) VALUES (?, -1, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET arrived = arrived + excluded.arrived, expires = excluded.expires",
            (chord_id, expires, fresh.rowcount),
        )
    complete = connection.execute(
        "UPDATE chords SET finisher = coalesce(finisher, ?) WHERE id = ? AND size >= 0 AND arrived >= size "
        "RETURNING finisher",
        (parts[-1].task_id, chord_id),
    ).fetchall()
    ours = {part.task_id for part in parts}
    return next((finisher for (finisher,) in complete if finisher in ours), None)


def parts_of(connection: sqlite3.Connection, chord_id: str) -> list[tuple[str, bytes]]:
    """Return task and payload of all parts of a chord, in the order of its header, those added later last."""
    return connection.execute(
        "SELECT task, payload FROM chord_parts WHERE chord = ? ORDER BY position IS NULL, position",
        (chord_id,),
    ).fetchall()


def add_awaited(
    connection: sqlite3.Connection, chord_id: str, task_ids: Sequence[str], expires: float
) -> None:
    """Note parts that a chord has to wait for beyond its size: rows without a payload, not arrived.

    The parts that have arrived are counted less by as many, as the size may be announced later.
    """
    finished = "SELECT 1 FROM chords WHERE id = ? AND finisher IS NOT NULL"
    if connection.execute(finished, (chord_id,)).fetchone():
        return
    added = connection.executemany(
        "INSERT OR IGNORE INTO chord_parts (chord, task, payload, expires) VALUES (?, ?, x'', ?)",
        [(chord_id, task_id, expires) for task_id in task_ids],
    )
    connection.execute(
        "INSERT INTO chords (id, size, expires, arrived) VALUES (?, -1, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET arrived = arrived + excluded.arrived, expires = excluded.expires",
        (chord_id, expires, -added.rowcount),
    )
