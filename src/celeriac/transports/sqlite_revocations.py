"""The revocations of an embedded broker: two small tables in its file."""

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
# What is to be ended where it runs. A table of its own: workers of older versions read the other one.
_ENDS_TABLE = """
CREATE TABLE IF NOT EXISTS revoked_ends (number INTEGER PRIMARY KEY AUTOINCREMENT, stamp TEXT NOT NULL,
    value TEXT NOT NULL, signal TEXT NOT NULL, made REAL NOT NULL, UNIQUE (stamp, value, signal))
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
                [(each.stamp, each.value, now) for each in revoked if not each.signal],
            )
            ends = [(each.stamp, each.value, each.signal, now) for each in revoked if each.signal]
            if ends:
                connection.execute(_ENDS_TABLE)
                connection.executemany(
                    "INSERT OR REPLACE INTO revoked_ends (stamp, value, signal, made) VALUES (?, ?, ?, ?)",
                    ends,
                )
            for table in _tables(connection):
                connection.execute(
                    f"DELETE FROM {table} WHERE made < ? "  # noqa: S608 - one of our two names
                    f"OR number <= (SELECT max(number) FROM {table}) - ?",
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
                Remembered(Revocation(value, stamp, signal), max(0.0, now - made))
                for stamp, value, signal, made in _rows(connection)
            ]
        )


def _tables(connection: sqlite3.Connection) -> list[str]:
    """Return those of the tables that are there: a file has none before something is revoked."""
    known = "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('revoked', 'revoked_ends')"
    return sorted(name for (name,) in connection.execute(known))


def _rows(connection: sqlite3.Connection) -> list[tuple[str, str, str, float]]:
    """Return stamps, values, signals and times, the oldest first."""
    rows: list[tuple[str, str, str, float]] = []
    for table in _tables(connection):
        signal = "signal" if table == "revoked_ends" else "''"
        columns = f"stamp, value, {signal}, made"
        rows += connection.execute(f"SELECT {columns} FROM {table} ORDER BY number")  # noqa: S608 - as above
    return sorted(rows, key=_made)


def _made(row: tuple[str, str, str, float]) -> float:
    return row[-1]
