"""What becomes of the parts of chords in a database."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from celeriac.backends.sql_tables import WITH_ON_CONFLICT, Tables, insert_new, naive_utc, upsert

PartRow = dict[str, Any]  # Any: values of columns: chord_id, task_id, position, state, payload

_AWAITED = ""  # the state of a part that a chord has grown by and that has not come


class SqlChords:
    """Counts the parts of chords; every method runs in a transaction of its caller.

    A chord's row is locked first, so that parts take turns and the last one sees all others, also those that
    came before the chord was started.

    Args:
        tables: Where.
    """

    def __init__(self, tables: Tables) -> None:
        self._chords = tables.chords
        self._parts = tables.parts

    def start(self, connection: sa.Connection, chord_id: str, size: int) -> None:
        """Note how many parts a chord has."""
        row = {"chord_id": chord_id, "size": size, "created": naive_utc(None)}
        upsert(connection, self._chords, "chord_id", [row])

    def add_parts(self, connection: sa.Connection, chord_id: str, rows: Sequence[PartRow]) -> str | None:
        """Note parts of a chord, each once, whatever is known of it already.

        Args:
            connection: In a transaction.
            chord_id: The chord of all these parts.
            rows: At least one, and one for a task.

        Returns:
            The task that has completed the chord, if that is one of these, now or when it came before.
        """
        chords = self._chords
        mine = chords.c.chord_id == chord_id
        self._lock(connection, chord_id)
        columns = (chords.c.size, chords.c.finisher, chords.c.arrived)
        size, finisher, arrived = connection.execute(sa.select(*columns).where(mine)).one()
        fresh = self._enter(connection, [{**row, "arrival": arrived + n} for n, row in enumerate(rows)])
        if fresh:
            arrived += fresh
            connection.execute(chords.update().where(mine).values(arrived=arrived))
        if size is None or arrived < size:
            return None
        ours = [row["task_id"] for row in rows]
        if finisher is None:
            finisher = ours[-1]
            connection.execute(chords.update().where(mine).values(finisher=finisher))
        return finisher if finisher in ours else None

    def parts_of(self, connection: sa.Connection, chord_id: str) -> Sequence[sa.Row[Any]]:  # Any: columns
        """Return all parts of a chord, in the order of its header, those added later last."""
        parts = self._parts
        order = (parts.c.position.is_(None), parts.c.position, parts.c.arrival)
        return connection.execute(sa.select(parts).where(parts.c.chord_id == chord_id).order_by(*order)).all()

    def add_awaited(self, connection: sa.Connection, chord_id: str, task_ids: Sequence[str]) -> None:
        """Note parts that a chord has to wait for beyond its size: rows that have no state yet.

        The parts that have arrived are counted less by as many, as the size may be announced later.
        """
        chords = self._chords
        mine = chords.c.chord_id == chord_id
        self._lock(connection, chord_id)
        if connection.scalar(sa.select(chords.c.finisher).where(mine)) is not None:
            return
        awaited = {"chord_id": chord_id, "arrival": 0, "state": _AWAITED, "payload": b""}
        added = sum(
            insert_new(connection, self._parts, {**awaited, "task_id": task_id}) for task_id in task_ids
        )
        connection.execute(chords.update().where(mine).values(arrived=chords.c.arrived - added))

    def end(self, connection: sa.Connection, chord_id: str) -> None:
        """Remove what was kept for a chord."""
        for table in (self._parts, self._chords):
            connection.execute(table.delete().where(table.c.chord_id == chord_id))

    def remove_untouched_since(self, connection: sa.Connection, limit: datetime.datetime) -> None:
        """Remove the chords that nothing was noted of since then."""
        chords, parts = self._chords, self._parts
        old = sa.select(chords.c.chord_id).where(chords.c.created < limit)
        connection.execute(parts.delete().where(parts.c.chord_id.in_(old)))
        connection.execute(chords.delete().where(chords.c.created < limit))

    def _lock(self, connection: sa.Connection, chord_id: str) -> None:
        chords, now = self._chords, naive_utc(None)
        insert_new(connection, chords, {"chord_id": chord_id, "size": None, "created": now})
        connection.execute(chords.update().where(chords.c.chord_id == chord_id).values(created=now))

    def _enter(self, connection: sa.Connection, rows: Sequence[PartRow]) -> int:
        """Write those parts that have not come before; return how many they were."""
        parts, dialect = self._parts, connection.dialect.name
        if dialect not in WITH_ON_CONFLICT:
            return sum(self._enter_one(connection, row) for row in rows)
        insert = (postgresql if dialect == "postgresql" else sqlite).insert(parts)
        changed = ("position", "arrival", "state", "payload")
        statement = insert.on_conflict_do_update(
            index_elements=[parts.c.chord_id, parts.c.task_id],
            set_={name: insert.excluded[name] for name in changed},
            where=parts.c.state == _AWAITED,
        )
        return len(connection.execute(statement.returning(parts.c.task_id), rows).all())

    def _enter_one(self, connection: sa.Connection, row: PartRow) -> bool:
        """Write a part, maybe into the row that `add_awaited` has left for it; whether it is new."""
        parts = self._parts
        if insert_new(connection, parts, row):
            return True
        there = (parts.c.chord_id == row["chord_id"]) & (parts.c.task_id == row["task_id"])
        written = connection.execute(parts.update().where(there & (parts.c.state == _AWAITED)).values(**row))
        return bool(written.rowcount)
