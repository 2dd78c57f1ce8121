"""The bursts of an embedded broker: a small table in its file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from celeriac.bursts import Burst, Turn
from celeriac.clock import Clock
from celeriac.errors import TransportError
from celeriac.locks import PATIENCE_SECONDS
from celeriac.transports.sqlite_file import Handle

T = TypeVar("T")

# state: a `Burst` as JSON; until: epoch seconds, when it is forgotten. Not in the file's schema: only a
# program with debounced tasks needs it.
_TABLE = """
CREATE TABLE IF NOT EXISTS bursts (name TEXT PRIMARY KEY, state BLOB NOT NULL, until REAL NOT NULL)
    WITHOUT ROWID
"""
_WRITE = "INSERT OR REPLACE INTO bursts (name, state, until) VALUES (?, ?, ?)"


class SqliteBursts:
    """Bursts for the clients and nodes of one machine, `celeriac.bursts.Bursts`.

    Args:
        handle: On the file; ours alone.
        busy_seconds: How long to wait for the file's lock.
        clock: Says what time it is.
    """

    def __init__(self, handle: Handle, busy_seconds: float, clock: Clock) -> None:
        self._handle = handle
        self._busy_seconds = busy_seconds
        self._clock = clock

    def join(
        self,
        name: str,
        task_id: str,
        due_seconds: float,
        keep_seconds: float,
        *,
        deadline: float = PATIENCE_SECONDS,
    ) -> tuple[str, int]:
        """See `celeriac.bursts.Bursts`."""

        def work(connection: sqlite3.Connection, now: float) -> tuple[str, int]:
            connection.execute("DELETE FROM bursts WHERE until <= ?", (now,))
            burst = _read(connection, name)
            joined = burst.join(task_id, now, due_seconds)
            connection.execute(_WRITE, (name, msgspec.json.encode(burst), now + keep_seconds))
            return joined

        return self._write(work, deadline)

    def leave(self, turn: Turn, *, deadline: float = PATIENCE_SECONDS) -> None:
        """See `celeriac.bursts.Bursts`."""

        def work(connection: sqlite3.Connection, _: float) -> None:
            burst = _read(connection, turn.name)
            burst.leave(turn.number)
            connection.execute(
                "UPDATE bursts SET state = ? WHERE name = ?", (msgspec.json.encode(burst), turn.name)
            )

        self._write(work, deadline)

    def begin(self, turns: Sequence[Turn], keep_seconds: float) -> list[float]:
        """See `celeriac.bursts.Bursts`."""

        def work(connection: sqlite3.Connection, now: float) -> list[float]:
            told = []
            for turn in turns:
                burst = _read(connection, turn.name)
                told.append(burst.begin(turn.number, now))
                connection.execute(_WRITE, (turn.name, msgspec.json.encode(burst), now + keep_seconds))
            return told

        return self._write(work, PATIENCE_SECONDS)

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def _write(self, work: Callable[[sqlite3.Connection, float], T], deadline: float) -> T:
        def prepared(connection: sqlite3.Connection) -> T:
            connection.execute(_TABLE)
            return work(connection, self._clock.time())

        try:
            return self._handle.write(prepared, min(self._busy_seconds, deadline))
        except TimeoutError as exc:
            raise TransportError(f"The bursts of debounced tasks are out of reach: {exc}") from exc


def _read(connection: sqlite3.Connection, name: str) -> Burst:
    found = connection.execute("SELECT state FROM bursts WHERE name = ?", (name,)).fetchone()
    return Burst() if found is None else msgspec.json.decode(found[0], type=Burst)
