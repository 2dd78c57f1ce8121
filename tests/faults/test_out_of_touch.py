"""A node that loses touch with the broker while it writes down what has ended, and lives."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from celeriac.app import Celeriac
from celeriac.canvas import chain, chord
from celeriac.message import Part
from celeriac.ports import CountsParts
from celeriac.task import Task
from celeriac.testing.worker import start_worker
from celeriac.transports import sqlite_leases as leases
from servers import RabbitServer, until

TIMEOUT = 20.0
LEASE_SECONDS = 1.0  # the least there is


class File:
    """The embedded broker's file, as another node sees it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def owner(self) -> int:
        """Return the number of the latest owner."""
        with closing(sqlite3.connect(self._path)) as connection:
            return int(connection.execute("SELECT max(id) FROM owners").fetchone()[0] or 0)

    def held(self) -> int:
        """Return how many messages nodes hold."""
        with closing(sqlite3.connect(self._path)) as connection:
            return int(connection.execute("SELECT count(*) FROM leases").fetchone()[0])

    def count_as_redelivered(self) -> None:
        """Have all that waits look as if it had been given back by workers that died."""
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute("UPDATE ready SET handed = 1, flags = ?", (leases.REDELIVERED,))

    def take_for_dead(self, owner: int) -> None:
        """Give back what an owner holds."""
        with closing(sqlite3.connect(self._path)) as connection, connection:
            leases.give_back(connection, owner, died=True)


def test_who_was_taken_for_dead_when_it_had_counted_the_last_part_of_a_chord_sends_the_body(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message of the part comes back to the same node, which knows that it has run it."""
    file, url = File(tmp_path / "broker.db"), f"sqlite:///{tmp_path}/broker.db"
    app = Celeriac("touch", broker=url, backend=url, set_as_current=False)
    app.conf.update(worker_lease_seconds=LEASE_SECONDS, task_acks_late=True, worker_prefetch_multiplier=4)
    sums: list[int] = []
    blocks, go_on = threading.Event(), threading.Event()

    @app.task
    def given(number: int) -> int:
        until(lambda: file.held() == 2 or None, TIMEOUT, "the other task to come")
        return number

    @app.task
    def total(numbers: list[int]) -> int:
        sums.append(sum(numbers))
        return sums[-1]

    @app.task
    def block() -> None:
        blocks.set()
        go_on.wait(TIMEOUT)

    # Given a part that is counted while the only slot is taken by another task
    count = cast("CountsParts", app.backend).count_parts

    async def counted(parts: Sequence[Part]) -> list[str]:
        complete: list[str] = await count(parts)
        await asyncio.to_thread(blocks.wait, TIMEOUT)
        # When the node is taken for dead, as it was stopped for longer than its lease
        file.take_for_dead(file.owner())
        time.sleep(LEASE_SECONDS)  # in the loop: nothing is renewed meanwhile
        return complete

    monkeypatch.setattr(app.backend, "count_parts", counted)
    with start_worker(app, pool="threads", concurrency=1):
        owner = file.owner()
        body = chord([given.s(2)], total.s()).delay()
        block.delay()
        until(lambda: file.owner() > owner or None, TIMEOUT, "the node to notice")
        until(lambda: app.transport.size("celery") == 0 or None, TIMEOUT, "the messages to come again")
        go_on.set()
        # Then the body runs
        assert body.get(timeout=TIMEOUT) == 2
    assert sums == [2]
    app.close()


@pytest.mark.parametrize("late", [False, True], ids=["acknowledged early", "acknowledged late"])
def test_who_loses_rabbitmq_when_it_had_counted_the_last_part_of_a_chord_sends_the_body(
    rabbitmq_server: RabbitServer, rabbitmq_url: str, tmp_path: Path, late: bool
) -> None:
    """RabbitMQ hands out again what it was told nothing of; what was acknowledged early is gone."""
    app = Celeriac(
        "touch", broker=rabbitmq_url, backend=f"sqlite:///{tmp_path}/results.db", set_as_current=False
    )
    app.conf.update(task_acks_late=late, worker_prefetch_multiplier=4)
    blocks, go_on = threading.Event(), threading.Event()

    @app.task
    def given(number: int) -> int:
        assert worker.node is not None
        ledger = worker.node.ledger
        until(lambda: len(ledger) == 2 or None, TIMEOUT, "the other task to come")
        return number

    @app.task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task
    def block() -> None:
        blocks.set()
        go_on.wait(TIMEOUT)

    with start_worker(app, pool="threads", concurrency=1) as worker:
        node = worker.node
        assert node is not None
        # Given a body that cannot be sent yet, as the only slot is taken
        body = chord([given.s(2)], total.s()).delay()
        block.delay()
        assert blocks.wait(TIMEOUT)
        until(lambda: any(work.joins for work in node.ledger) or None, TIMEOUT, "the chord to be full")
        # When the connection breaks
        rabbitmq_server.evaluate("[exit(Reader, kill) || Reader <- rabbit_networking:local_connections()].")
        until(lambda: node.link.losses or None, TIMEOUT, "the node to notice")
        until(lambda: node.link.is_up or None, TIMEOUT, "the node to be back")
        go_on.set()
        # Then the body runs
        assert body.get(timeout=TIMEOUT) == 2
    app.close()


@pytest.mark.parametrize("kind", ["chain", "chord"])
def test_what_has_taken_the_place_of_a_task_runs_though_a_worker_has_died_that_held_it(
    tmp_path: Path, kind: str
) -> None:
    """Its last call goes on under the id of a task that this node knows to have run."""
    file, url = File(tmp_path / "broker.db"), f"sqlite:///{tmp_path}/broker.db"
    app = Celeriac("touch", broker=url, backend=url, set_as_current=False)
    app.conf.update(task_acks_late=True, worker_disable_prefetch=True)
    blocks, go_on = threading.Event(), threading.Event()

    @app.task(bind=True)
    def becomes(self: Task) -> None:
        calls = chain(given.s(2), last.s())
        raise self.replace(calls if kind == "chain" else chord([other.s()], calls))

    @app.task
    def other() -> int:
        return 0

    @app.task
    def given(*numbers: object) -> int:
        block.delay()
        return 2

    @app.task
    def last(number: int) -> int:
        return number

    @app.task
    def block() -> None:
        blocks.set()
        go_on.wait(TIMEOUT)

    with start_worker(app, pool="threads", concurrency=1):
        # Given the last call, which waits while the only slot is taken
        ended = becomes.delay()
        assert blocks.wait(TIMEOUT)
        until(lambda: app.transport.size("celery") == 1 or None, TIMEOUT, "the last call to be sent")
        # When another worker has had it meanwhile
        file.count_as_redelivered()
        go_on.set()
        # Then it runs
        assert ended.get(timeout=TIMEOUT) == 2
    app.close()
