"""Parts of chords are counted on every database, with ``ON CONFLICT`` and without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from celeriac.backends import sql_chords, sql_tables
from celeriac.backends.sql_chords import PartRow, SqlChords
from celeriac.backends.sql_tables import Tables


@pytest.fixture(params=["on conflict", "without"])
def connection(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Connection]:
    """A connection to empty tables; as of a database that has ``ON CONFLICT``, and of one that has not."""
    if request.param == "without":
        for module in (sql_tables, sql_chords):
            monkeypatch.setattr(module, "WITH_ON_CONFLICT", frozenset())
    engine = sa.create_engine("sqlite://")
    TABLES.metadata.create_all(engine)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


TABLES = Tables(None, None, extended=False)


def part(task_id: str, position: int | None) -> PartRow:
    return {
        "chord_id": "c",
        "task_id": task_id,
        "position": position,
        "state": "SUCCESS",
        "payload": task_id.encode(),
    }


def test_one_of_the_last_parts_has_completed_the_chord_and_those_it_has_grown_by_come_last(
    connection: sa.Connection,
) -> None:
    chords, one, two, more = SqlChords(TABLES), part("one", 0), part("two", 1), part("more", None)
    chords.add_awaited(connection, "c", ["more"])
    chords.start(connection, "c", 2)

    said = [chords.add_parts(connection, "c", rows) for rows in ([more], [more, one], [one], [one, two])]

    assert said == [None, None, None, "two"]
    assert [row.task_id for row in chords.parts_of(connection, "c")] == ["one", "two", "more"]
    assert chords.add_parts(connection, "c", [one]) is None
    assert chords.add_parts(connection, "c", [two]) == "two"
