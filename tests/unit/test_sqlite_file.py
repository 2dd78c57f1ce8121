"""The embedded broker's file: where it is, how it is opened, and what a fork does to it."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from celeriac.errors import BrokerUnreachable, ConfigError, TransportError
from celeriac.net.url import parse
from celeriac.transports import connect
from celeriac.transports.sqlite import SqliteTransport
from celeriac.transports.sqlite_file import SCHEMA_VERSION, Handle, Location, file_options, locate


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[Handle]:
    handle = a_handle(tmp_path / "x.db")
    yield handle
    handle.close()


def a_handle(path: Path, synchronous: str = "full") -> Handle:
    return Handle(
        Location(path), synchronous=synchronous, unreachable=BrokerUnreachable, failed=TransportError
    )


def count(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("SELECT count(*) FROM queues").fetchone()[0]
    return found


def add(name: str, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO queues (name, auto_delete) VALUES (?, 0)", (name,))


@pytest.mark.parametrize(
    ("url", "app_name", "wanted"),
    [
        ("sqlite:////var/lib/q.db", "proj", "/var/lib/q.db"),
        ("sqlite:///q.db", "proj", "{cwd}/q.db"),
        ("sqlite://", "proj", "{state}/celeriac/proj.sqlite3"),
        ("sqlite", "proj", "{state}/celeriac/proj.sqlite3"),
        ("sqlite://", None, "{state}/celeriac/default.sqlite3"),
        ("sqlite://", "../etc/pass wd", "{state}/celeriac/_etc_pass_wd.sqlite3"),
        ("sqlite://?synchronous=off", "proj", "{state}/celeriac/proj.sqlite3"),
    ],
)
def test_the_url_says_where_the_file_is(
    url: str, app_name: str | None, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    location = locate(parse(url), app_name)

    assert str(location.path) == wanted.format(cwd=Path.cwd(), state=tmp_path)


def test_without_xdg_the_state_directory_is_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert locate(parse("sqlite://"), "a").path == tmp_path / ".local/state/celeriac/a.sqlite3"


def test_a_url_with_a_host_is_refused() -> None:
    with pytest.raises(ConfigError, match="three slashes"):
        locate(parse("sqlite://broker.db"), None)


def test_the_transport_shows_its_path(tmp_path: Path) -> None:
    assert connect(f"sqlite:///{tmp_path}/q.db").address == f"{tmp_path}/q.db"


def test_options_come_from_the_url_before_the_transport_options() -> None:
    options = file_options(
        parse("sqlite:///x.db?synchronous=NORMAL&poll_seconds=0.5"),
        {"synchronous": "off", "busy_timeout": 3, "visibility_timeout": 3600},
    )

    assert (options.synchronous, options.poll_seconds, options.busy_timeout) == ("normal", 0.5, 3.0)


@pytest.mark.parametrize("query", ["synchronous=maybe", "busy_timeout=long"])
def test_options_that_cannot_be_are_refused(query: str) -> None:
    with pytest.raises(ConfigError, match=query.partition("=")[0]):
        file_options(parse(f"sqlite:///x.db?{query}"), {})


def test_the_default_directory_is_made_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    transport = connect("sqlite://", app_name="proj")

    assert transport.size("celery") == 0

    transport.close()
    directory = tmp_path / "state" / "celeriac"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert (directory / "proj.sqlite3").exists()


def test_an_explicit_directory_has_to_be_there(tmp_path: Path) -> None:
    transport = connect(f"sqlite:///{tmp_path}/missing/q.db")

    with pytest.raises(BrokerUnreachable, match=r"missing/q\.db"):
        transport.size("celery")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "q.db").write_text("this is a text file, and a long one at that " * 50)

    with pytest.raises(BrokerUnreachable, match="not a database"):
        connect(f"sqlite:///{tmp_path}/q.db").size("celery")


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "q.db")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()

    with pytest.raises(ConfigError, match=f"format {SCHEMA_VERSION + 1}"):
        connect(f"sqlite:///{tmp_path}/q.db").size("celery")


def test_a_file_of_the_first_version_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    new = a_handle(path)
    new.write(partial(add, "kept"), 1.0)
    new.close()
    connection = sqlite3.connect(path)
    connection.executescript(
        "DROP TABLE claims; DROP TABLE chords; DROP INDEX groups_by_expiry; PRAGMA user_version = 1;"
        "DROP TABLE listeners; DROP TABLE broadcasts;"
        "DROP TABLE keyed; DROP TABLE lines; DROP TABLE rounds; ALTER TABLE messages DROP COLUMN fair_key;"
        "ALTER TABLE dead DROP COLUMN kind; ALTER TABLE dead DROP COLUMN node;"
        "CREATE TABLE chords (id TEXT PRIMARY KEY, size INTEGER NOT NULL, finisher TEXT, expires REAL)"
        " WITHOUT ROWID;"
        "INSERT INTO chords VALUES ('open', 3, NULL, NULL);"
        "INSERT INTO chord_parts VALUES ('open', 'a', 0, '', NULL), ('open', 'b', 1, '', NULL);"
    )
    connection.close()

    handle = a_handle(path)

    assert handle.read(count) == 1
    assert handle.read(lambda c: c.execute("SELECT id, arrived FROM chords").fetchall()) == [("open", 2)]
    assert handle.read(lambda c: c.execute("SELECT * FROM claims").fetchall()) == []
    handle.close()


def test_many_threads_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    handles = [a_handle(tmp_path / "new.db") for _ in range(8)]
    ready = threading.Barrier(8)
    errors: list[BaseException] = []

    def open_and_write(number: int) -> None:
        ready.wait()
        try:
            handles[number].write(lambda c: add(str(number), c), 10.0)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=open_and_write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = handles[0].read(count)
    for handle in handles:
        handle.close()
    assert errors == []
    assert found == 8


def test_work_that_raises_leaves_nothing_behind(handle: Handle) -> None:
    def work(connection: sqlite3.Connection) -> None:
        add("half", connection)
        raise LookupError("no")

    with pytest.raises(LookupError):
        handle.write(work, 5.0)

    assert handle.read(count) == 0
    handle.write(lambda c: add("whole", c), 5.0)
    assert handle.read(count) == 1


def test_waiting_for_the_lock_ends_in_time(tmp_path: Path, handle: Handle) -> None:
    handle.write(lambda c: add("one", c), 5.0)
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(TimeoutError):
        handle.write(lambda c: add("two", c), 0.2)

    assert handle.read(count) == 1  # readers never wait
    other.execute("ROLLBACK")
    other.close()
    handle.write(lambda c: add("two", c), 5.0)


def test_a_replaced_file_is_opened_anew(tmp_path: Path, handle: Handle) -> None:
    handle.write(lambda c: add("old", c), 5.0)
    for path in tmp_path.glob("x.db*"):
        path.unlink()

    handle.reopen_if_replaced()

    assert handle.read(count) == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_no_connection_crosses_a_fork(tmp_path: Path, handle: Handle) -> None:
    handle.write(lambda c: add("before", c), 5.0)

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            own = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
            inherited = [name for name in own if str(tmp_path) in name]
            handle.write(lambda c: add("child", c), 5.0)
            status = 0 if not inherited and handle.read(count) == 2 else 2
            handle.close()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)

    handle.write(lambda c: add("parent", c), 5.0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert handle.read(count) == 3


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def test_a_durable_commit_is_on_the_disk_and_one_sync_does_for_many(
    handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("celeriac.transports.sqlite_file._fdatasync", synced.append)
    for name in "abc":
        handle.write(partial(add, name), 5.0)

    handle.sync(3)
    handle.sync(1)
    handle.sync(2)

    assert len(synced) == 1
    handle.write(lambda c: add("d", c), 5.0)
    handle.sync(4)
    assert len(synced) == 2


def test_a_handle_that_promises_nothing_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("celeriac.transports.sqlite_file._fdatasync", synced.append)
    relaxed = a_handle(tmp_path / "x.db", "normal")

    relaxed.write(lambda c: add("a", c), 5.0)
    relaxed.sync(1)

    relaxed.close()
    assert synced == []


def test_a_disk_that_refuses_is_told(handle: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("celeriac.transports.sqlite_file._fdatasync", refuse)
    handle.write(lambda c: add("a", c), 5.0)

    with pytest.raises(TransportError, match="not written to the disk"):
        handle.sync(1)


def test_the_default_file_of_two_apps_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    one, two = (SqliteTransport("sqlite://", {"app_name": name}) for name in ("one", "two"))

    assert one.address != two.address
