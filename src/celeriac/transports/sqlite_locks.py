"""The locks of an embedded broker: a small table in its file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

from celeriac.clock import Clock
from celeriac.errors import TransportError
from celeriac.locks import PATIENCE_SECONDS, UNSENT_MARK, Lock
from celeriac.transports.sqlite_file import Handle

T = TypeVar("T")

# holder: with a mark in front as long as its call is not known to be sent. since, until: seconds on the
# monotonic clock of the boot. Not in the file's schema: only a program with unique tasks needs it.
_TABLE = """
CREATE TABLE IF NOT EXISTS locks (name TEXT PRIMARY KEY, holder TEXT NOT NULL, since REAL NOT NULL,
    until REAL NOT NULL) WITHOUT ROWID
"""


class SqliteLocks:
    """Locks for the clients and nodes of one machine, `celeriac.locks.Locks`.

    Args:
        handle: On the file; ours alone.
        busy_seconds: How long to wait for the file's lock.
        clock: Its monotonic time says when locks end.
    """

    def __init__(self, handle: Handle, busy_seconds: float, clock: Clock) -> None:
        self._handle = handle
        self._busy_seconds = busy_seconds
        self._clock = clock

    def take(self, wanted: Sequence[Lock], *, deadline: float = PATIENCE_SECONDS) -> list[str | None]:
        """See `celeriac.locks.Locks`."""
        return self._write(
            lambda connection, now: [_take(connection, lock, now) for lock in wanted], deadline
        )

    def confirm(self, sent: Sequence[Lock], *, deadline: float = PATIENCE_SECONDS) -> None:
        """See `celeriac.locks.Locks`."""

        def work(connection: sqlite3.Connection, now: float) -> list[None]:
            connection.executemany(
                "UPDATE locks SET holder = ?, since = ?, until = ? WHERE name = ? AND holder = ?",
                [
                    (lock.holder, now, now + lock.seconds, lock.name, UNSENT_MARK + lock.holder)
                    for lock in sent
                ],
            )
            return []

        self._write(work, deadline)

    def exchange(
        self, free: Sequence[Lock], keep: Sequence[Lock], *, deadline: float = PATIENCE_SECONDS
    ) -> list[bool]:
        """See `celeriac.locks.Locks`."""

        def work(connection: sqlite3.Connection, now: float) -> list[bool]:
            connection.executemany(
                "DELETE FROM locks WHERE name = ? AND holder IN (?, ?)",
                [(lock.name, lock.holder, UNSENT_MARK + lock.holder) for lock in free],
            )
            return [_keep(connection, lock, now) for lock in keep]

        return self._write(work, deadline)

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def _write(self, work: Callable[[sqlite3.Connection, float], list[T]], deadline: float) -> list[T]:
        def clear_and_work(connection: sqlite3.Connection) -> list[T]:
            now = self._clock.monotonic()
            connection.execute(_TABLE)
            # What began later than now is of another boot of the machine: its clock began at 0, too.
            connection.execute("DELETE FROM locks WHERE until <= ? OR since > ?", (now, now))
            return work(connection, now)

        try:
            return self._handle.write(clear_and_work, min(self._busy_seconds, deadline))
        except TimeoutError as exc:
            raise TransportError(f"The locks of unique tasks are out of reach: {exc}") from exc


def _take(connection: sqlite3.Connection, lock: Lock, now: float) -> str | None:
    """Take a lock and return None, or return who holds it."""
    held = connection.execute("SELECT holder FROM locks WHERE name = ?", (lock.name,)).fetchone()
    if held is not None:
        holder: str = held[0]
        return holder.removeprefix(UNSENT_MARK)
    connection.execute(
        "INSERT INTO locks (name, holder, since, until) VALUES (?, ?, ?, ?)",
        (lock.name, UNSENT_MARK + lock.holder, now, now + lock.seconds),
    )
    return None


def _keep(connection: sqlite3.Connection, lock: Lock, now: float) -> bool:
    """Have a lock last, if it is held."""
    done = connection.execute(
        "UPDATE locks SET holder = ?, since = ?, until = ? WHERE name = ? AND holder IN (?, ?)",
        (lock.holder, now, now + lock.seconds, lock.name, lock.holder, UNSENT_MARK + lock.holder),
    )
    return done.rowcount == 1
