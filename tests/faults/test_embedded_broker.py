"""What the embedded broker has confirmed is there, whoever is killed, and whatever becomes of the disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from celeriac.ports import ConsumeSpec
from celeriac.transports.sqlite import SqliteTransport
from celeriac.transports.sqlite_file import SPARE_PAGES
from faults.embedded_peer import QUEUE, message

PEER = Path(__file__).with_name("embedded_peer.py")
IN_A_MOUNT_OF_ITS_OWN = ("unshare", "--mount", "--propagation", "private", "sh", "-euc")


def peer(*arguments: object, wrapped: str = "") -> list[str]:
    """Run the peer and return the lines that it prints."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(PEER), *map(str, arguments)]
    if wrapped:
        command = [*IN_A_MOUNT_OF_ITS_OWN, f'{wrapped}; exec "$@"', "sh", *command]
    done = subprocess.run(
        command,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.splitlines()


def test_what_send_has_confirmed_outlives_its_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/q.db"

    peer("killed_senders", url, 200)

    transport = SqliteTransport(url, {})
    assert transport.size(QUEUE.name) == 200
    transport.close()


def test_twenty_processes_open_a_new_file_and_use_it_at_once(tmp_path: Path) -> None:
    *lines, statuses = peer("crowd", f"sqlite:///{tmp_path}/q.db", 20)

    assert statuses == str([0] * 20)
    sent = [f"got {number}-{part}" for number in range(1, 20, 2) for part in range(20)]
    assert sorted(lines) == sorted(sent)


def test_a_full_disk_is_told_to_senders_and_workers_go_on(tmp_path: Path) -> None:
    if not may_mount(tmp_path):
        pytest.skip("mounting a small disk is not allowed here")

    lines = peer("full_disk", tmp_path / "q.db", wrapped=f"mount -t tmpfs -o size=24m tmpfs '{tmp_path}'")

    by_us, all_came, free, by_others, all_came_again, integrity = lines
    assert by_us.startswith("refused: Nothing was sent: the disk of the embedded broker's file")
    assert "Free some space" in by_us
    assert (all_came, all_came_again) == ("all came", "all came")
    assert free == "free: 0"
    assert by_others.startswith("refused: ")
    assert "Free some space" in by_others
    assert integrity == "ok"


def may_mount(directory: Path) -> bool:
    """Return whether a private mount of a small disk is allowed."""
    if shutil.which("unshare") is None:
        return False
    command = [*IN_A_MOUNT_OF_ITS_OWN, f"mount -t tmpfs -o size=1m tmpfs '{directory}'"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


async def test_the_file_is_shortened_after_a_burst(tmp_path: Path) -> None:
    file = tmp_path / "q.db"
    url = f"sqlite:///{file}"
    transport = SqliteTransport(url, {})
    producer = transport.producer()
    producer.send([message(str(n), size=100_000) for n in range(600)], deadline=60)
    assert pages(file) > 6 * SPARE_PAGES
    transport.purge(QUEUE.name)
    consumer = await transport.consumer(consume_spec())

    for _ in range(40):
        await consumer.renew()

    await consumer.close()
    producer.close()
    transport.close()
    assert pages(file) <= SPARE_PAGES + 512
    assert file.stat().st_size <= (SPARE_PAGES + 512) * 4096


async def test_what_is_sent_after_the_file_was_removed_goes_into_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "q.db"
    transport = SqliteTransport(f"sqlite:///{file}", {})
    producer = transport.producer()
    producer.send([message("old")], deadline=5)
    file.unlink()

    producer.send([message("new")], deadline=5)

    other = SqliteTransport(f"sqlite:///{file}", {})
    assert other.size(QUEUE.name) == 1
    for one in (producer, transport, other):
        one.close()


def pages(file: Path) -> int:
    connection = sqlite3.connect(file)
    found: int = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.close()
    return found


def consume_spec() -> ConsumeSpec:
    return ConsumeSpec(queues=(QUEUE,), node="one@test")
