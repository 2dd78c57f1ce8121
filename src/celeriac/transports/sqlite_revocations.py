"""The revocations of an embedded broker: a small table in its file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from celeriac.clock import Clock
from celeriac.errors import TransportError
from celeriac.revocations import MOST, Remembered, Revocation
from celeriac.transports.sqlite_file import Handle

# made: epoch seconds, as it outlives the boot. Not in the file's schema: most programs revoke nothing.
_TABLE = """
CREATE TABLE IF NOT EXISTS revoked (number INTEGER PRIMARY KEY AUTOINCREMENT, stamp TEXT NOT NULL,
    value TEXT NOT NULL, made REAL NOT NULL, UNIQUE (stamp, value))
"""


class SqliteRevocations:
    """What the nodes of one machine shall not run, `celeriac.revocations.Revocations`.

    Args:
        handle: On the file.
        busy_seconds: How long to wait for the file's lock.
        clock: Says when a revocation is made.
    """

    def __init__(self, handle: Handle, busy_seconds: float, clock: Clock) -> None:
        self._handle = handle
        self._busy_seconds = busy_seconds
        self._clock = clock

    def note(self, revoked: Sequence[Revocation], *, kept_seconds: float) -> None:
        """See `celeriac.revocations.Revocations`."""

        def work(connection: sqlite3.Connection) -> None:
            now = self._clock.time()
            connection.execute(_TABLE)
            connection.executemany(
                "INSERT OR REPLACE INTO revoked (stamp, value, made) VALUES (?, ?, ?)",
                [(each.stamp, each.value, now) for each in revoked],
            )
            connection.execute(
                "DELETE FROM revoked WHERE made < ? OR number <= (SELECT max(number) FROM revoked) - ?",
                (now - kept_seconds, MOST),
            )

        try:
            self._handle.write(work, self._busy_seconds)
        except TimeoutError as exc:
            raise TransportError(f"Nothing was revoked, as that could not be noted: {exc}") from exc

    def recall(self) -> list[Remembered]:
        """See `celeriac.revocations.Revocations`."""
        now = self._clock.time()
        return self._handle.read(
            lambda connection: [
                Remembered(Revocation(value, stamp), max(0.0, now - made))
                for stamp, value, made in _rows(connection)
            ]
        )


def _rows(connection: sqlite3.Connection) -> list[tuple[str, str, float]]:
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'revoked'")
    if known.fetchone() is None:  # nobody has ever revoked anything
        return []
    return connection.execute("SELECT stamp, value, made FROM revoked ORDER BY number").fetchall()
