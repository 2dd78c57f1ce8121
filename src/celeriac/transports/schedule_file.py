"""The file that keeps a timetable where no store does: SQLite."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from celeriac.errors import TransportError
from celeriac.transports.sqlite_timetable import SqliteTimetable, make_tables

__all__ = ["ScheduleFile", "file_timetable"]

logger: logging.Logger = logging.getLogger("celery.beat")

T = TypeVar("T")
_BUSY_SECONDS: Final = 10.0
_RUBBISH: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class ScheduleFile:
    """An SQLite file, `celeriac.transports.sqlite_timetable.Database`.

    One that is none, or turns out to be damaged, is moved aside, and a new one is begun.

    Args:
        path: The file; it is made when it is missing.
        begin: Makes what the file shall have; called each time that it was opened.

    Raises:
        TransportError: It cannot be opened.
    """

    def __init__(self, path: str, begin: Callable[[sqlite3.Connection], None]) -> None:
        self.path: str = os.path.abspath(path)
        self._begin = begin
        self._database: sqlite3.Connection | None = None
        self._inode = 0  # of the file that is open
        self._carry_out(lambda database: None)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run the work in a transaction of its own and commit it."""
        return self._carry_out(lambda database: _committed(database, work))

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run the work without waiting for writers."""
        return self._carry_out(work)

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _carry_out(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._translated():
            try:
                return work(self._opened())
            except sqlite3.DatabaseError as exc:
                # One that is locked, or in a folder that is not there, is no rubbish.
                if exc.sqlite_errorcode & 0xFF not in _RUBBISH:
                    raise
                self._move_aside(exc)
                return work(self._opened())

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = self._open()
        return self._database

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._inode = os.stat(self.path).st_ino
            # With a write-ahead log a write waits for no disk; the death of the process loses nothing.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            _committed(database, self._begin)
        except BaseException:
            database.close()
            raise
        return database

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise TransportError(f"The schedule file {self.path} cannot be used: {exc}.") from exc

    def _move_aside(self, exc: sqlite3.DatabaseError) -> None:
        self.close()
        # Another scheduler may have done so already, and begun a new one.
        if os.stat(self.path).st_ino != self._inode:
            return
        aside = f"{self.path}.unreadable-{time.time_ns()}"
        os.rename(self.path, aside)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path + suffix, aside + suffix)
        logger.error(
            "beat: The schedule file %s cannot be read (%s); it is now %s, and a new one is begun: "
            "each entry counts as sent now.",
            self.path, exc, aside,
        )  # fmt: skip


def _committed(database: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    database.execute("BEGIN IMMEDIATE")
    try:
        result = work(database)
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # some errors have ended it
            database.execute("ROLLBACK")
        raise
    return result


def file_timetable(path: str, owner: str) -> SqliteTimetable:
    """Return the timetable in a file.

    Args:
        path: The file; it is made when it is missing, and moved aside when it is none.
        owner: Whose timetable it is.

    Raises:
        TransportError: It cannot be opened.
    """
    file = ScheduleFile(path, lambda connection: make_tables(connection, owner))
    return SqliteTimetable(file, file.path, owner)
