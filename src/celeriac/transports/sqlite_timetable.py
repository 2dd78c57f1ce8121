"""A timetable in two small tables of an SQLite file: the embedded broker's, or one of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from celeriac.timetable import Changes, Lead, Line

T = TypeVar("T")

# Not in the broker's schema: only a program with periodic tasks needs them. A line's revision is that of the
# timetable when it was written; a line without a value was removed.
_TIMETABLES: Final = """
CREATE TABLE IF NOT EXISTS timetables (owner TEXT PRIMARY KEY, holder TEXT NOT NULL, term INTEGER NOT NULL,
    at REAL NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID
"""
_LINES: Final = """
CREATE TABLE IF NOT EXISTS timetable_lines (owner TEXT, key TEXT, value BLOB, revision INTEGER NOT NULL,
    PRIMARY KEY (owner, key)) WITHOUT ROWID
"""
_INDEX: Final = """
CREATE INDEX IF NOT EXISTS timetable_lines_by_revision ON timetable_lines (owner, revision)
"""


class Database(Protocol):
    """An SQLite file: opened when first used, and what it raises is an error of ours."""

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run the work in a transaction of its own and commit it."""
        ...

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run the work without waiting for writers."""
        ...

    def close(self) -> None:
        """Close it; the next call opens it again."""
        ...


class SqliteTimetable:
    """A timetable for the schedulers of one machine, `celeriac.timetable.Timetable`.

    Args:
        database: The file; ours alone.
        address: The file for people.
        owner: Whose timetable it is.
    """

    def __init__(self, database: Database, address: str, owner: str) -> None:
        self.address = address
        self._database = database
        self._owner = owner
        self._made = False

    def lead(self) -> Lead:
        """See `celeriac.timetable.Timetable`."""
        self._make()
        query = "SELECT holder, term, at FROM timetables WHERE owner = ?"
        row = self._database.read(lambda c: c.execute(query, (self._owner,)).fetchone())
        return Lead() if row is None else Lead(*row)

    def take(self, holder: str, term: int, at: float) -> bool:
        """See `celeriac.timetable.Timetable`."""
        self._make()
        change = (
            "UPDATE timetables SET holder = ?, term = term + 1, at = ? WHERE owner = ? AND term = ?",
            (holder, at, self._owner, term),
        )
        return self._database.write(lambda c: c.execute(*change).rowcount == 1)

    def changes(self, after: int) -> Changes:
        """See `celeriac.timetable.Timetable`."""
        self._make()
        query = (
            "SELECT coalesce((SELECT revision FROM timetables WHERE owner = :owner), 0), NULL, NULL "
            "UNION ALL SELECT revision, key, value FROM timetable_lines "
            "WHERE owner = :owner AND revision > :after"
        )
        values = {"owner": self._owner, "after": after}
        first, *rows = self._database.read(lambda c: c.execute(query, values).fetchall())
        return Changes(first[0], {key: Line(value, revision) for revision, key, value in rows})

    def write(self, lines: Mapping[str, bytes | None], term: int) -> bool:
        """See `celeriac.timetable.Timetable`."""
        self._make()

        def work(connection: sqlite3.Connection) -> bool:
            if not self._next_revision(connection, "AND term = :term", term=term):
                return False
            self._put(connection, lines)
            return True

        return self._database.write(work)

    def edit(self, key: str, value: bytes | None, revision: int) -> bool:
        """See `celeriac.timetable.Timetable`."""
        self._make()

        def work(connection: sqlite3.Connection) -> bool:
            query = "SELECT revision FROM timetable_lines WHERE owner = ? AND key = ?"
            row = connection.execute(query, (self._owner, key)).fetchone()
            if (0 if row is None else row[0]) != revision:
                return False
            self._next_revision(connection)
            self._put(connection, {key: value})
            return True

        return self._database.write(work)

    def close(self) -> None:
        """See `celeriac.timetable.Timetable`."""
        self._database.close()

    def _make(self) -> None:
        if not self._made:
            self._database.write(lambda connection: make_tables(connection, self._owner))
            self._made = True

    def _next_revision(self, connection: sqlite3.Connection, where: str = "", **values: Any) -> bool:
        """Count the revision up; whether the condition held."""
        change = f"UPDATE timetables SET revision = revision + 1 WHERE owner = :owner {where}"  # noqa: S608 - ours
        return connection.execute(change, {"owner": self._owner, **values}).rowcount == 1

    def _put(self, connection: sqlite3.Connection, lines: Mapping[str, bytes | None]) -> None:
        connection.executemany(
            "INSERT OR REPLACE INTO timetable_lines (owner, key, value, revision) VALUES (?, ?, ?, "
            "(SELECT revision FROM timetables WHERE owner = ?))",
            [(self._owner, key, value, self._owner) for key, value in lines.items()],
        )


def make_tables(connection: sqlite3.Connection, owner: str) -> None:
    """Make the tables where they are missing, and the row of a timetable.

    Args:
        connection: To the file, in a transaction.
        owner: Whose timetable it is.
    """
    for statement in (_TIMETABLES, _LINES, _INDEX):
        connection.execute(statement)
    connection.execute("INSERT OR IGNORE INTO timetables VALUES (?, '', 0, 0.0, 0)", (owner,))
