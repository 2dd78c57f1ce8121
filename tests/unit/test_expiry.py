"""Nothing that has expired stays in a store, though nobody schedules its removal."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from celeriac.backends import BackendSpec, connect
from celeriac.backends.memory import MemoryBackend
from celeriac.codecs import Codecs
from celeriac.ports import ResultBackend
from celeriac.testing.conformance.chords import members
from celeriac.testing.conformance.outcomes import success

PATIENCE_SECONDS = 20.0
MANY = 2500  # more than go at once


def make(url: str, expires_seconds: float | None = 0.05) -> ResultBackend:
    backend = connect(BackendSpec(url=url, codecs=Codecs(), expires_seconds=expires_seconds))
    assert backend is not None
    return backend


def fill(backend: ResultBackend) -> None:
    """Store something of each kind; the chord is left by all."""
    outcomes = [success(number) for number in range(MANY)]
    backend.store([backend.encode(outcome) for outcome in outcomes])
    for number in range(3):
        backend.save_group(f"group-{number}", [[f"group-{number}", None], []])
        backend.claim(f"task-{number}", "copy")
    backend.start_chord("left", 3, members(outcomes[:3]))
    backend.chord_part("left", 0, outcomes[0])
    backend.grow_chord("left", ["more"])


def store_until(backend: ResultBackend, condition: Callable[[], bool]) -> None:
    """Store something now and then, as workers do all the time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        backend.store([backend.encode(success("new", id="new"))])
        time.sleep(0.02)


def rows(path: Path, *tables: str) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as file:
        return {table: file.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


def make_old(path: Path, *columns: str, value: str) -> None:
    """Let everything in a file have come to its end long ago."""
    with closing(sqlite3.connect(path)) as file:
        for column in columns:
            table, _, name = column.partition(".")
            file.execute(f"UPDATE {table} SET {name} = {value}")
        file.commit()


TABLES = ("results", "groups", "claims", "chords", "chord_parts")


def test_in_the_embedded_file_everything_goes_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    old = make(f"sqlite:///{path}", 3600)
    fill(old)
    old.close()
    make_old(path, *(f"{table}.expires" for table in TABLES), value="1.0")
    backend = make(f"sqlite:///{path}", 3600)

    backend.store([backend.encode(success("new", id="new"))])
    assert MANY / 2 < rows(path, "results")["results"] < MANY  # nobody has to wait while all of it goes
    store_until(backend, lambda: rows(path, "results")["results"] == 1)

    assert rows(path, *TABLES) == {"results": 1, "groups": 0, "claims": 0, "chords": 0, "chord_parts": 0}
    backend.close()


@pytest.mark.parametrize("sweep", [False, True], ids=["beside a claim", "when it is told to"])
def test_where_no_results_are_stored_the_rest_goes_as_well(tmp_path: Path, sweep: bool) -> None:
    path = tmp_path / "q.db"
    old = make(f"sqlite:///{path}", 3600)
    fill(old)
    old.close()
    make_old(path, *(f"{table}.expires" for table in TABLES), value="1.0")
    backend = make(f"sqlite:///{path}", 3600)

    if sweep:
        backend.cleanup()
    else:
        assert backend.claim("task-0", "another copy")

    assert rows(path, *TABLES[1:]) == {
        "groups": 0, "claims": 0 if sweep else 1, "chords": 0, "chord_parts": 0,
    }  # fmt: skip
    backend.close()


def test_a_chord_whose_parts_still_come_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    backend = make(f"sqlite:///{path}")
    parts = [success(number) for number in range(3)]
    backend.start_chord("slow", 3, members(parts))
    backend.chord_part("slow", 0, parts[0])
    make_old(path, "chords.expires", "chord_parts.expires", value="1.0")

    backend.chord_part("slow", 1, parts[1])
    backend.cleanup()

    everything = backend.chord_part("slow", 2, parts[2])
    assert everything is not None
    assert [part.result for part in everything] == [0, 1, 2]
    backend.close()


def test_in_a_database_everything_goes(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    backend = make(f"db+sqlite:///{path}")
    fill(backend)
    make_old(path, "celeriac_chord.created", value="'2020-01-01 00:00:00.000000'")

    tables = ("celery_tasksetmeta", "celeriac_claim", "celeriac_chord", "celeriac_chord_part")
    store_until(backend, lambda: not any(rows(path, *tables).values()))
    store_until(backend, lambda: rows(path, "celery_taskmeta")["celery_taskmeta"] <= 1)
    backend.close()


def test_in_a_database_a_chord_whose_parts_still_come_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    backend = make(f"db+sqlite:///{path}")
    parts = [success(number) for number in range(3)]
    backend.start_chord("slow", 3, members(parts))
    backend.chord_part("slow", 0, parts[0])
    make_old(path, "celeriac_chord.created", value="'2020-01-01 00:00:00.000000'")

    backend.chord_part("slow", 1, parts[1])
    backend.cleanup()

    assert backend.chord_part("slow", 2, parts[2]) is not None
    backend.close()


def test_in_a_folder_everything_goes(tmp_path: Path) -> None:
    backend = make(f"file://{tmp_path}")
    fill(backend)
    [chord] = tmp_path.glob("celeriac-chord-*")
    (tmp_path / "somebody else's").touch()

    store_until(backend, lambda: len(list(tmp_path.glob("[!.]*"))) <= 3)
    assert chord.exists()
    os.utime(chord, (1.0, 1.0))
    backend.cleanup()

    assert not chord.exists()
    assert (tmp_path / "somebody else's").exists()
    backend.close()


def test_in_memory_everything_goes() -> None:
    backend = make("memory://expiry")
    assert isinstance(backend, MemoryBackend)
    fill(backend)
    kept = backend._store
    kept.chords["left"].touched_at -= 100_000

    store_until(backend, lambda: not any((kept.groups, kept.claims, kept.chords)))
    store_until(backend, lambda: len(kept.results) <= 1)
    backend.close()
