"""Rows are inserted or overwritten on every database, with ``ON CONFLICT`` and without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from celeriac.backends import sql_tables
from celeriac.backends.sql_tables import insert_new, upsert

TABLE = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("name", sa.String(20), primary_key=True),
    sa.Column("state", sa.String(20)),
    sa.Column("value", sa.Integer),
)


@pytest.fixture(params=["on conflict", "without"])
def connection(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Connection]:
    """A connection to an empty table; as of a database that has ``ON CONFLICT``, and of one that has not."""
    if request.param == "without":
        monkeypatch.setattr(sql_tables, "WITH_ON_CONFLICT", frozenset())
    engine = sa.create_engine("sqlite://")
    TABLE.metadata.create_all(engine)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def rows(connection: sa.Connection) -> list[tuple[str, str, int]]:
    return [tuple(row) for row in connection.execute(sa.select(TABLE).order_by(TABLE.c.name))]


def test_rows_are_inserted_and_overwritten(connection: sa.Connection) -> None:
    upsert(connection, TABLE, "name", [{"name": "a", "state": "NEW", "value": 1}])

    upsert(
        connection,
        TABLE,
        "name",
        [{"name": "a", "state": "OLD", "value": 2}, {"name": "b", "state": "NEW", "value": 3}],
    )

    assert rows(connection) == [("a", "OLD", 2), ("b", "NEW", 3)]


@pytest.mark.parametrize(("there", "after"), [("FINAL", 1), ("OPEN", 2), (None, 2)])
def test_a_row_stays_unless_the_condition_holds(
    connection: sa.Connection, there: str | None, after: int
) -> None:
    upsert(connection, TABLE, "name", [{"name": "a", "state": there, "value": 1}])
    overwrite = [{"name": "a", "state": "OPEN", "value": 2}]

    upsert(connection, TABLE, "name", overwrite, when=TABLE.c.state.is_distinct_from("FINAL"))

    assert [value for _, _, value in rows(connection)] == [after]


def test_a_new_row_is_inserted_once(connection: sa.Connection) -> None:
    assert insert_new(connection, TABLE, {"name": "a", "state": "NEW", "value": 1})
    assert not insert_new(connection, TABLE, {"name": "a", "state": "OLD", "value": 2})

    assert rows(connection) == [("a", "NEW", 1)]
