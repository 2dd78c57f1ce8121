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
from celeriac.transports.sqlite_timetable import SqliteTimetable

__all__ = ["ScheduleFile", "file_timetable"]

logger: logging.Logger = logging.getLogger("celery.beat")

T = TypeVar("T")
_BUSY_SECONDS: Final = 10.0


class ScheduleFile:
    """An SQLite file, `celeriac.transports.sqlite_timetable.Database`. One that is none is moved aside.

    Args:
        path: The file; it is made when it is missing.

    Raises:
        TransportError: It cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path: str = os.path.abspath(path)
        self._database: sqlite3.Connection | None = None
        with self._translated():
            try:
                self._opened()
            except sqlite3.DatabaseError as exc:
                self._move_aside(exc)
                self._opened()

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run the work in a transaction of its own and commit it."""
        with self._translated():
            database = self._opened()
            database.execute("BEGIN IMMEDIATE")
            try:
                result = work(database)
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")
            return result

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run the work without waiting for writers."""
        with self._translated():
            return work(self._opened())

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = self._open()
        return self._database

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            # With a write-ahead log a write waits for no disk; the death of the process loses nothing.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("SELECT count(*) FROM sqlite_master").fetchall()
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
        # Only what is no database: one that is locked, or in a folder that is not there, is no rubbish.
        if isinstance(exc, sqlite3.OperationalError) or not os.path.isfile(self.path):
            raise exc
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


def file_timetable(path: str, owner: str) -> SqliteTimetable:
    """Return the timetable in a file.

    Args:
        path: The file; it is made when it is missing, and moved aside when it is none.
        owner: Whose timetable it is.

    Raises:
        TransportError: It cannot be opened.
    """
    file = ScheduleFile(path)
    return SqliteTimetable(file, file.path, owner)
