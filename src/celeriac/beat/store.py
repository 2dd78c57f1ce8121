"""Where it is kept when entries were sent last."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import sqlite3
import time
from collections.abc import Iterable
from typing import NamedTuple, Protocol

__all__ = ["Run", "RunStore", "SqliteRunStore"]

logger: logging.Logger = logging.getLogger("celery.beat")

_UTC = datetime.UTC
_TABLE = """
CREATE TABLE IF NOT EXISTS runs (name TEXT PRIMARY KEY, last_run_at REAL NOT NULL, count INTEGER NOT NULL)
"""
_UPSERT = "INSERT OR REPLACE INTO runs (name, last_run_at, count) VALUES (?, ?, ?)"


class Run(NamedTuple):
    """When an entry was sent last, and how often it has been."""

    last_run_at: datetime.datetime
    times: int


class RunStore(Protocol):
    """Keeps runs by the names of entries; of one scheduler, in one thread."""

    def load(self) -> dict[str, Run]:
        """Return what is kept."""
        ...

    def save(self, name: str, run: Run) -> None:
        """Keep one; when it returns, the death of this process loses it no more."""
        ...

    def replace(self, runs: dict[str, Run]) -> None:
        """Keep these and no others; all or nothing."""
        ...

    def close(self) -> None:
        """Let go of it; may be called twice."""
        ...


class SqliteRunStore:
    """Keeps runs in an SQLite file. One that is none is moved aside, and said so.

    Args:
        path: The file; it is made when it is missing.
    """

    def __init__(self, path: str) -> None:
        self.path: str = os.path.abspath(path)
        try:
            self._database = self._open()
        except sqlite3.DatabaseError as exc:
            self._move_aside(exc)
            self._database = self._open()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            # With a write-ahead log a write waits for no disk; the death of the process loses nothing.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_TABLE)
            database.execute("SELECT name, last_run_at, count FROM runs LIMIT 1").fetchall()
        except BaseException:
            database.close()
            raise
        return database

    def _move_aside(self, exc: Exception) -> None:
        if isinstance(exc, sqlite3.OperationalError) and not os.path.isfile(self.path):
            raise exc  # it is not the content: there is no such folder, say
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

    def load(self) -> dict[str, Run]:
        """Return what is kept."""
        rows = self._database.execute("SELECT name, last_run_at, count FROM runs").fetchall()
        return {name: Run(datetime.datetime.fromtimestamp(at, _UTC), count) for name, at, count in rows}

    def save(self, name: str, run: Run) -> None:
        """Keep one."""
        self._database.execute(_UPSERT, (name, run.last_run_at.timestamp(), run.times))

    def replace(self, runs: dict[str, Run]) -> None:
        """Keep these and no others."""
        rows: Iterable[tuple[str, float, int]] = [
            (name, run.last_run_at.timestamp(), run.times) for name, run in runs.items()
        ]
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._database.execute("DELETE FROM runs")
            self._database.executemany(_UPSERT, rows)
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def close(self) -> None:
        """Let go of it."""
        self._database.close()
