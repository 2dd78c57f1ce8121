"""Removing what has expired from an SQLite file, a portion at a time, in a transaction of the caller."""

from __future__ import annotations

import sqlite3
from typing import Final

ALL: Final = -1  # SQLite's word for no limit

# The parts of a chord go with it, and it is used for as long as parts of it come.
_EXPIRED = "(SELECT id FROM {0} WHERE expires <= ? LIMIT ?)"
_REMOVALS: Final = (
    *(f"DELETE FROM {t} WHERE id IN {_EXPIRED.format(t)}" for t in ("results", "groups", "claims")),  # noqa: S608
    (
        "DELETE FROM chord_parts WHERE (chord, task) IN (SELECT chord, task FROM chord_parts "
        "JOIN chords ON chords.id = chord WHERE chords.expires <= ? LIMIT ?)"
    ),
    (
        "DELETE FROM chords WHERE id IN (SELECT id FROM chords WHERE expires <= ? "
        "AND NOT EXISTS (SELECT 1 FROM chord_parts WHERE chord = chords.id) LIMIT ?)"
    ),
)


def remove_expired(connection: sqlite3.Connection, now: float, most: int) -> bool:
    """Remove what has expired.

    Args:
        connection: In a transaction.
        now: Epoch seconds.
        most: How many rows of each kind, or `ALL`.

    Returns:
        Whether there may be more.
    """
    removed = [connection.execute(removal, (now, most)).rowcount for removal in _REMOVALS]
    return max(removed) == most
