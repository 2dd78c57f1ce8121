"""The database backend beside real Celery: its tables, its values; and when the server is away."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from celeriac.backends import BackendSpec, connect
from celeriac.backends.sql import SqlBackend
from celeriac.codecs import Codecs
from celeriac.errors import BackendError, BackendUnreachable, ConfigError
from celeriac.message import Outcome
from processes import user_environment
from servers import PostgresServer, until


def make(url: str, **changes: Any) -> SqlBackend:
    """Return a backend; ``changes`` are fields of its spec."""
    backend = connect(BackendSpec(url=url, codecs=Codecs(), **changes))
    assert isinstance(backend, SqlBackend)
    return backend


def store(backend: SqlBackend, *outcomes: Outcome) -> None:
    backend.store([backend.encode(outcome) for outcome in outcomes])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The database file."""
    return tmp_path / "db.sqlite3"


def test_the_tables_are_those_of_celery(file: Path) -> None:
    backend = make(f"db+sqlite:///{file}", extended=True)
    store(backend, Outcome(id="one", state="SUCCESS", result=3))
    backend.close()

    with sqlite3.connect(file) as database:
        tables = dict(
            database.execute(
                "SELECT name, sql FROM sqlite_master WHERE name LIKE 'celery_task%' AND type = 'table'"
            )
        )
        indexes = [
            name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'index'")
        ]
    database.close()

    columns = {
        table: [line.strip(" \t,") for line in text.splitlines()[1:-1]] for table, text in tables.items()
    }
    assert columns["celery_taskmeta"][:6] == [
        "id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT",
        "task_id VARCHAR(155)",
        "status VARCHAR(50)",
        "result BLOB",
        "date_done DATETIME",
        "traceback TEXT",
    ]
    assert columns["celery_taskmeta"][6:12] == [
        "name VARCHAR(155)",
        "args BLOB",
        "kwargs BLOB",
        "worker VARCHAR(155)",
        "retries INTEGER",
        "queue VARCHAR(155)",
    ]
    assert columns["celery_tasksetmeta"][:4] == [
        "id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT",
        "taskset_id VARCHAR(155)",
        "result BLOB",
        "date_done DATETIME",
    ]
    assert {"ix_celery_taskmeta_date_done", "ix_celery_tasksetmeta_date_done"} <= set(indexes)


def test_values_are_pickled_as_celery_reads_them(file: Path) -> None:
    backend = make(f"db+sqlite:///{file}", extended=True)
    store(
        backend,
        Outcome(id="good", state="SUCCESS", result={"n": 3}, extended={"args": [1, 2], "kwargs": {}}),
        Outcome(id="bad", state="FAILURE", result=ValueError("boom", 42), traceback="Traceback …\n"),
    )
    backend.close()

    with sqlite3.connect(file) as database:
        rows = {
            row[0]: row[1:]
            for row in database.execute("SELECT task_id, status, result, args, kwargs FROM celery_taskmeta")
        }
    database.close()

    assert pickle.loads(rows["good"][1]) == {"n": 3}
    assert rows["good"][2:] == (b"[1,2]", b"{}")
    failure = pickle.loads(rows["bad"][1])
    assert (failure["exc_type"], failure["exc_module"]) == ("ValueError", "builtins")
    assert list(failure["exc_message"]) == ["boom", 42]


def test_a_row_that_celery_wrote_is_read(file: Path) -> None:
    backend = make(f"db+sqlite:///{file}")
    store(backend, Outcome(id="ours", state="SUCCESS", result=1))
    failure = {"exc_type": "ValueError", "exc_message": ("boom", 42), "exc_module": "builtins"}

    with sqlite3.connect(file) as database:
        database.execute(
            "INSERT INTO celery_taskmeta (task_id, status, result, date_done) VALUES (?, ?, ?, ?)",
            ("theirs", "FAILURE", pickle.dumps(failure, 5), "2026-11-20 23:12:48.280674"),
        )
    database.close()

    got = backend.fetch(["theirs"])["theirs"]
    backend.close()
    assert isinstance(got.result, ValueError)
    assert got.result.args == ("boom", 42)
    assert got.date_done == "2026-11-20T23:12:48.280674+00:00"


def test_rows_of_celery_5_7_are_read(file: Path) -> None:
    backend = make(f"db+sqlite:///{file}")
    store(backend, Outcome(id="ours", state="SUCCESS", result=1))
    failure = '{"exc_type": "ValueError", "exc_message": ["boom", 42], "exc_module": "builtins"}'

    with sqlite3.connect(file) as database:
        insert = "INSERT INTO celery_taskmeta (task_id, status, result, date_done) VALUES (?, ?, ?, ?)"
        done = "2026-11-20 23:12:48.280674"
        database.execute(insert, ("good", "SUCCESS", b'{"n": [3]}', done))
        database.execute(insert, ("bad", "FAILURE", failure.encode(), done))
    database.close()

    got = backend.fetch(["good", "bad"])
    backend.close()
    assert got["good"].result == {"n": [3]}
    assert isinstance(got["bad"].result, ValueError)
    assert got["bad"].result.args == ("boom", 42)


def test_extended_columns_are_added_to_a_table_without_them(file: Path) -> None:
    plain = make(f"db+sqlite:///{file}")
    store(plain, Outcome(id="before", state="SUCCESS", result=1))
    extended = make(f"db+sqlite:///{file}", extended=True)

    store(extended, Outcome(id="after", state="SUCCESS", result=2, extended={"name": "proj.add"}))
    store(plain, Outcome(id="beside", state="SUCCESS", result=3))

    got = extended.fetch(["before", "after", "beside"])
    plain.close()
    extended.close()
    assert {task_id: outcome.result for task_id, outcome in got.items()} == {
        "before": 1,
        "after": 2,
        "beside": 3,
    }
    assert got["after"].extended is not None
    assert got["after"].extended["name"] == "proj.add"


def test_tables_have_the_names_and_schemas_of_the_settings(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as database:
        database.execute("CREATE SCHEMA results")
    backend = make(
        f"db+{postgres_url}",
        options={
            "database_table_names": {"task": "my_tasks", "group": "my_groups"},
            "database_table_schemas": {"task": "results", "group": "results"},
        },
    )

    store(backend, Outcome(id="one", state="SUCCESS", result=1))
    backend.save_group("group", [["one", None], []])

    backend.close()
    with psycopg.connect(postgres_url) as database:
        assert database.execute("SELECT task_id FROM results.my_tasks").fetchall() == [("one",)]
        assert database.execute("SELECT taskset_id FROM results.my_groups").fetchall() == [("group",)]


def test_many_processes_make_the_tables_at_once(postgres_url: str, tmp_path: Path) -> None:
    script = (
        "import sys; from celeriac.backends import BackendSpec, connect; from celeriac.codecs import Codecs\n"
        "from celeriac.message import Outcome\n"
        "backend = connect(BackendSpec(url=sys.argv[1], codecs=Codecs())); print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "outcome = Outcome(id=sys.argv[2], state='SUCCESS', result=1)\n"
        "backend.store([backend.encode(outcome)]); backend.close()\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, f"db+{postgres_url}", str(number)],
            env=user_environment(tmp_path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    said = [process.communicate("go\n", timeout=30) for process in processes]

    assert [process.returncode for process in processes] == [0] * 4, said
    backend = make(f"db+{postgres_url}")
    assert len(backend.fetch([str(number) for number in range(4)])) == 4
    backend.close()


def test_a_hostile_group_is_refused_without_running_its_pickle(file: Path) -> None:
    backend = make(f"db+sqlite:///{file}")
    backend.save_group("ours", [["ours", None], []])
    plain = b'[["plain", null], [[["one", null], null]]]'  # as Celery 5.7 writes it
    hostile = b"cos\nsystem\n(S'exit 1'\ntR."
    with sqlite3.connect(file) as database:
        database.execute(
            "INSERT INTO celery_tasksetmeta (taskset_id, result) VALUES ('theirs', ?), ('plain', ?)",
            (hostile, plain),
        )
    database.close()

    with pytest.raises(BackendError, match="no result"):
        backend.restore_group("theirs")

    assert backend.restore_group("ours") == [["ours", None], []]
    assert backend.restore_group("plain") == [["plain", None], [[["one", None], None]]]
    backend.close()


def test_it_works_again_when_the_server_is_back(postgres_server: PostgresServer) -> None:
    backend = make(postgres_server.fresh_url("db+postgresql"))
    store(backend, Outcome(id="before", state="SUCCESS", result=1))

    postgres_server.kill()
    with pytest.raises(BackendUnreachable):
        backend.fetch(["before"])
    postgres_server.start()

    assert backend.fetch(["before"])["before"].result == 1
    backend.close()


def test_a_server_that_does_not_answer_is_given_up_in_time(postgres_server: PostgresServer) -> None:
    backend = make(postgres_server.fresh_url("db+postgresql").replace("celeriac@", "celeriac:sekrit@"))
    postgres_server.freeze()

    began = time.monotonic()
    with pytest.raises(BackendUnreachable) as caught:
        backend.fetch(["one"])

    assert time.monotonic() - began < 10
    assert "sekrit" not in str(caught.value)
    backend.close()


@pytest.mark.parametrize("url", ["db+sqlite://", "db+sqlite:///:memory:"])
def test_a_database_in_memory_is_refused_with_what_to_do(url: str) -> None:
    with pytest.raises(ConfigError, match="name a file"):
        make(url)


def test_the_bare_name_takes_the_url_of_its_setting(file: Path) -> None:
    backend = make("database", options={"database_url": f"sqlite:///{file}"})

    store(backend, Outcome(id="one", state="SUCCESS", result=1))

    backend.close()
    assert file.exists()
    with pytest.raises(ConfigError, match="database_url"):
        make("database")


def test_short_lived_sessions_leave_no_connection_behind(postgres_url: str) -> None:
    kept = make(f"db+{postgres_url}")
    short = make(f"db+{postgres_url}", options={"database_short_lived_sessions": True})

    def sessions() -> int:
        query = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with psycopg.connect(postgres_url) as database:
            [count] = database.execute(query).fetchone() or (0,)
            return int(count)

    store(short, Outcome(id="one", state="SUCCESS", result=1))
    until(lambda: sessions() == 0 or None, 10, "the end of the session")  # the server takes a moment
    store(kept, Outcome(id="two", state="SUCCESS", result=2))

    assert sessions() == 1
    kept.close()
    short.close()
