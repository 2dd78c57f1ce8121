"""A timetable in two tables of a database, made when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final

import sqlalchemy as sa

from celeriac.backends.sql_tables import CREATE_ATTEMPTS, ID_LENGTH, insert_new
from celeriac.timetable import Changes, Lead, Line

Opened = Callable[[], AbstractContextManager[sa.Connection]]

_METADATA: Final = sa.MetaData()
_TIMETABLES: Final = sa.Table(
    "celeriac_timetable",
    _METADATA,
    sa.Column("owner", sa.String(ID_LENGTH), primary_key=True),
    sa.Column("holder", sa.String(ID_LENGTH), nullable=False),
    sa.Column("term", sa.BigInteger, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)
_LINES: Final = sa.Table(
    "celeriac_timetable_line",
    _METADATA,
    sa.Column("owner", sa.String(ID_LENGTH), primary_key=True),
    sa.Column("key", sa.String(ID_LENGTH), primary_key=True),
    sa.Column("value", sa.LargeBinary),  # NULL: it was removed
    sa.Column("revision", sa.BigInteger, nullable=False, index=True),
)


class SqlTimetable:
    """A timetable for all schedulers that reach a database, `celeriac.timetable.Timetable`.

    Every writer changes the owner's row first and holds it until its transaction ends, so that revisions are
    seen in their order.

    Args:
        begin: Opens a transaction; what it raises is an error of ours.
        close: Lets go of the database.
        address: For people.
        owner: Whose timetable it is.
    """

    def __init__(self, begin: Opened, close: Callable[[], None], address: str, owner: str) -> None:
        self.address = address
        self._begin = begin
        self._close = close
        self._owner = owner
        self._mine = _TIMETABLES.c.owner == owner
        self._made = False

    def lead(self) -> Lead:
        """See `celeriac.timetable.Timetable`."""
        self._make()
        columns = (_TIMETABLES.c.holder, _TIMETABLES.c.term, _TIMETABLES.c.at)
        with self._begin() as connection:
            return Lead(*connection.execute(sa.select(*columns).where(self._mine)).one())

    def take(self, holder: str, term: int, at: float) -> bool:
        """See `celeriac.timetable.Timetable`."""
        self._make()
        change = _TIMETABLES.update().where(self._mine & (_TIMETABLES.c.term == term))
        with self._begin() as connection:
            changed = connection.execute(change.values(holder=holder, term=term + 1, at=at))
        return changed.rowcount == 1

    def changes(self, after: int) -> Changes:
        """See `celeriac.timetable.Timetable`."""
        self._make()
        lines = sa.select(_LINES.c.key, _LINES.c.value, _LINES.c.revision).where(
            (_LINES.c.owner == self._owner) & (_LINES.c.revision > after)
        )
        with self._begin() as connection:
            # What is written between both is found again next time.
            newest = connection.scalar(sa.select(_TIMETABLES.c.revision).where(self._mine))
            rows = connection.execute(lines).all()
        return Changes(newest or 0, {key: Line(value, revision) for key, value, revision in rows})

    def write(self, lines: Mapping[str, bytes | None], term: int) -> bool:
        """See `celeriac.timetable.Timetable`."""
        self._make()
        with self._begin() as connection:
            revision = self._next_revision(connection, _TIMETABLES.c.term == term)
            if revision is None:
                return False
            self._put(connection, lines, revision)
        return True

    def edit(self, key: str, value: bytes | None, revision: int) -> bool:
        """See `celeriac.timetable.Timetable`."""
        self._make()
        with self._begin() as connection:
            newest = self._next_revision(connection, sa.true())
            assert newest is not None, "the row is there since `_make`"
            line = (_LINES.c.owner == self._owner) & (_LINES.c.key == key)
            if (connection.scalar(sa.select(_LINES.c.revision).where(line)) or 0) != revision:
                return False
            self._put(connection, {key: value}, newest)
        return True

    def close(self) -> None:
        """See `celeriac.timetable.Timetable`."""
        self._close()

    def _make(self) -> None:
        if self._made:
            return
        for attempt in range(1, CREATE_ATTEMPTS + 1):
            try:
                with self._begin() as connection:
                    _METADATA.create_all(connection)
                break
            except Exception:
                # Between our look and our CREATE another scheduler was quicker: look again.
                if attempt == CREATE_ATTEMPTS:
                    raise
        with self._begin() as connection:
            row = {"owner": self._owner, "holder": "", "term": 0, "at": 0.0, "revision": 0}
            insert_new(connection, _TIMETABLES, row)
        self._made = True

    def _next_revision(self, connection: sa.Connection, condition: sa.ColumnElement[bool]) -> int | None:
        """Count the revision up and lock the row; None when the condition does not hold."""
        change = _TIMETABLES.update().where(self._mine & condition)
        changed = connection.execute(change.values(revision=_TIMETABLES.c.revision + 1)).rowcount == 1
        return connection.scalar(sa.select(_TIMETABLES.c.revision).where(self._mine)) if changed else None

    def _put(self, connection: sa.Connection, lines: Mapping[str, bytes | None], revision: int) -> None:
        for key, value in lines.items():
            row = {"owner": self._owner, "key": key, "value": value, "revision": revision}
            if not insert_new(connection, _LINES, row):
                line = (_LINES.c.owner == self._owner) & (_LINES.c.key == key)
                connection.execute(_LINES.update().where(line).values(value=value, revision=revision))
