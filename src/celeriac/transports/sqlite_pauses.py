"""The paused queues of the embedded broker: a small table in its file."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from celeriac.errors import TransportError
from celeriac.transports.sqlite_file import Handle

# Not in the file's schema: only a file with a queue that was once paused has it.
_TABLE = "CREATE TABLE IF NOT EXISTS paused (queue TEXT PRIMARY KEY) WITHOUT ROWID"
_HAS_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'paused'"


class SqlitePauses:
    """Paused queues of the workers of one machine, `celeriac.pauses.Pauses`.

    Args:
        handle: On the file; ours alone, and one that waits for the disk.
        busy_seconds: How long to wait for the file's lock.
    """

    look_seconds: float = 1.0

    def __init__(self, handle: Handle, busy_seconds: float) -> None:
        self._handle = handle
        self._busy_seconds = busy_seconds

    def pause(self, queue: str) -> None:
        """See `celeriac.pauses.Pauses`."""
        self._write("INSERT OR IGNORE INTO paused (queue) VALUES (?)", queue)

    def resume(self, queue: str) -> None:
        """See `celeriac.pauses.Pauses`."""
        self._write("DELETE FROM paused WHERE queue = ?", queue)

    def among(self, queues: Collection[str]) -> set[str]:
        """See `celeriac.pauses.Pauses`."""

        def look(connection: sqlite3.Connection) -> set[str]:
            if connection.execute(_HAS_TABLE).fetchone() is None:
                return set()
            return {queue for (queue,) in connection.execute("SELECT queue FROM paused")}

        return self._handle.read(look).intersection(queues)

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def _write(self, change: str, queue: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_TABLE)
            connection.execute(change, (queue,))

        try:
            self._handle.write(work, self._busy_seconds)
            self._handle.sync(self._handle.commits)
        except TimeoutError as exc:
            raise TransportError(f"Whether {queue!r} is paused was not changed: {exc}") from exc
