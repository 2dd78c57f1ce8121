"""The tables of the database backend: Celery's two to the letter, and two of our own for chords."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

ID_LENGTH = 155
CREATE_ATTEMPTS = 5

WITH_ON_CONFLICT = frozenset(
    {"postgresql", "sqlite"}
)  # databases whose INSERT knows what to do with a double
EXTENDED_COLUMNS = ("name", "args", "kwargs", "worker", "retries", "queue")


class Tables:
    """The tables under the names and in the schemas that the settings give them.

    Args:
        names: The setting ``database_table_names``: ``task`` and ``group``.
        schemas: The setting ``database_table_schemas``: ``task`` and ``group``.
        extended: Whether the task table has the columns of ``result_extended``.
    """

    def __init__(
        self, names: Mapping[str, str] | None, schemas: Mapping[str, str] | None, *, extended: bool
    ) -> None:
        names, schemas = names or {}, schemas or {}
        self.metadata: sa.MetaData = sa.MetaData()
        schema = schemas.get("task")
        self.tasks: sa.Table = sa.Table(
            names.get("task", "celery_taskmeta"),
            self.metadata,
            sa.Column("id", sa.Integer, sa.Sequence("task_id_sequence", schema=schema), primary_key=True),
            sa.Column("task_id", sa.String(ID_LENGTH), unique=True),
            sa.Column("status", sa.String(50)),
            sa.Column("result", sa.LargeBinary),
            sa.Column("date_done", sa.DateTime, index=True),
            sa.Column("traceback", sa.Text),
            *(_extended_columns() if extended else ()),
            sqlite_autoincrement=True,
            schema=schema,
        )
        group_schema = schemas.get("group")
        self.groups: sa.Table = sa.Table(
            names.get("group", "celery_tasksetmeta"),
            self.metadata,
            sa.Column(
                "id", sa.Integer, sa.Sequence("taskset_id_sequence", schema=group_schema), primary_key=True
            ),
            sa.Column("taskset_id", sa.String(ID_LENGTH), unique=True),
            sa.Column("result", sa.LargeBinary),
            sa.Column("date_done", sa.DateTime, index=True),
            sqlite_autoincrement=True,
            schema=group_schema,
        )
        self.chords: sa.Table = sa.Table(
            "celeriac_chord",
            self.metadata,
            sa.Column("chord_id", sa.String(ID_LENGTH), primary_key=True),
            sa.Column("size", sa.Integer),  # NULL: parts came before the chord was announced
            sa.Column("finisher", sa.String(ID_LENGTH)),  # the task that completed it
            sa.Column("arrived", sa.Integer, nullable=False, server_default="0"),
            sa.Column("created", sa.DateTime, nullable=False, index=True),
            schema=group_schema,
        )
        self.parts: sa.Table = sa.Table(
            "celeriac_chord_part",
            self.metadata,
            sa.Column("chord_id", sa.String(ID_LENGTH), primary_key=True),
            sa.Column("task_id", sa.String(ID_LENGTH), primary_key=True),
            sa.Column("position", sa.Integer),
            sa.Column("arrival", sa.Integer, nullable=False),
            sa.Column("state", sa.String(50), nullable=False),
            sa.Column("payload", sa.LargeBinary, nullable=False),
            schema=group_schema,
        )
        self.claims: sa.Table = sa.Table(
            "celeriac_claim",
            self.metadata,
            sa.Column("task_id", sa.String(ID_LENGTH), primary_key=True),
            sa.Column("copy", sa.String(ID_LENGTH), nullable=False),
            sa.Column("created", sa.DateTime, nullable=False, index=True),
            schema=group_schema,
        )

    def create(self, engine: sa.Engine) -> None:
        """Create what is missing; any number of processes may do so at the same moment."""
        with engine.connect():
            pass  # a server that is away is told once, not as often as we try below
        for attempt in range(1, CREATE_ATTEMPTS + 1):
            try:
                self.metadata.create_all(engine)
                self._add_columns(engine)
                return
            except sa.exc.DBAPIError:
                # Between our look and our CREATE another process was quicker: look again.
                if attempt == CREATE_ATTEMPTS:
                    raise

    def _add_columns(self, engine: sa.Engine) -> None:
        """Add the columns of ``result_extended`` to a table that was made without; nobody minds them."""
        there = {
            column["name"]
            for column in sa.inspect(engine).get_columns(self.tasks.name, schema=self.tasks.schema)
        }
        missing = [column for column in self.tasks.columns if column.name not in there]
        if missing:
            with engine.begin() as connection:
                preparer = connection.dialect.identifier_preparer
                table = preparer.format_table(self.tasks)
                for column in missing:
                    kind = column.type.compile(connection.dialect)
                    name = preparer.format_column(column)
                    connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")


def _extended_columns() -> Sequence[sa.Column[Any]]:  # Any: columns of several types
    return (
        sa.Column("name", sa.String(ID_LENGTH)),
        sa.Column("args", sa.LargeBinary),
        sa.Column("kwargs", sa.LargeBinary),
        sa.Column("worker", sa.String(ID_LENGTH)),
        sa.Column("retries", sa.Integer),
        sa.Column("queue", sa.String(ID_LENGTH)),
    )


def plain_text(text: str) -> str:
    """Return a text as every database takes it: NUL becomes U+FFFD, a lone surrogate a question mark."""
    plain = text.replace("\x00", "\ufffd")
    return plain if plain.isascii() else plain.encode("utf-8", "replace").decode("utf-8")


def naive_utc(moment: str | None) -> datetime.datetime:
    """Return a moment as the column has it: UTC without saying so; now when there is none."""
    if moment is None:
        return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    parsed = datetime.datetime.fromisoformat(moment)
    return parsed if parsed.tzinfo is None else parsed.astimezone(datetime.UTC).replace(tzinfo=None)


def upsert(
    connection: sa.Connection,
    table: sa.Table,
    key: str,
    rows: Sequence[dict[str, Any]],  # Any: values of columns
    *,
    when: sa.ColumnElement[bool] | None = None,
) -> None:
    """Insert rows or, where their key is there already, overwrite it; one statement for all of them.

    Args:
        connection: In a transaction.
        table: Where to.
        key: Name of the unique column; no two rows share a value of it.
        rows: All with the same columns.
        when: What has to be true of the row that is there for it to be overwritten.
    """
    dialect = connection.dialect.name
    changed = [name for name in rows[0] if name != key]
    if dialect in WITH_ON_CONFLICT:
        insert = (postgresql if dialect == "postgresql" else sqlite).insert(table)
        statement = insert.on_conflict_do_update(
            index_elements=[key],
            set_={name: insert.excluded[name] for name in changed},
            where=when,
        )
        connection.execute(statement, rows)
        return
    for row in rows:
        _update_or_insert(connection, table, key, row, when)


def insert_new(
    connection: sa.Connection,
    table: sa.Table,
    row: dict[str, Any],  # Any: values of columns
) -> bool:
    """Insert a row unless its primary key is there already; whether it was inserted."""
    dialect = connection.dialect.name
    if dialect in WITH_ON_CONFLICT:
        insert = (postgresql if dialect == "postgresql" else sqlite).insert(table)
        [first, *_] = table.primary_key.columns
        inserted = connection.execute(insert.on_conflict_do_nothing().returning(first), row)
        return inserted.first() is not None
    try:
        with connection.begin_nested():
            connection.execute(table.insert(), row)
    except sa.exc.IntegrityError:
        return False
    return True


def _update_or_insert(
    connection: sa.Connection,
    table: sa.Table,
    key: str,
    row: dict[str, Any],  # Any: values of columns
    when: sa.ColumnElement[bool] | None,
) -> None:
    """Do one row of `upsert` on databases that have no ``ON CONFLICT``."""
    if insert_new(connection, table, row):
        return
    update = table.update().where(table.c[key] == row[key])
    if when is not None:
        update = update.where(when)
    connection.execute(update.values({name: value for name, value in row.items() if name != key}))
