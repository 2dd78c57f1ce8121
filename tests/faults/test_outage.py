"""What becomes of running tasks when RabbitMQ restarts, as the settings for a lost connection say."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.task import Task
from celeriac.testing.worker import start_worker
from servers import RabbitServer, until

TIMEOUT = 60.0
CANCELLED = "is cancelled: the connection to the broker was lost"
REDUCED = "Temporarily reducing the prefetch count to 4 to avoid over-fetching since 2 tasks are currently"
RESTORED = "Prefetch count has been restored to the maximum of 8"


@dataclass
class Stage:
    """An app whose tasks begin, wait for a sign, and leave traces in a folder."""

    app: Celeriac
    folder: Path
    server: RabbitServer
    log: pytest.LogCaptureFixture

    def begun(self, name: str) -> list[int]:
        """Return the processes in which a task has begun."""
        traces = sorted(self.folder.glob(f"{name}.begun.*"), key=lambda path: path.stat().st_mtime_ns)
        return [int(path.suffix[1:]) for path in traces]

    def await_beginnings(self, name: str, count: int) -> list[int]:
        """Wait until a task has begun in so many processes."""
        return until(
            lambda: pids if len(pids := self.begun(name)) >= count else None, TIMEOUT, f"{name} to begin"
        )

    def release(self, name: str) -> None:
        """Let a task end."""
        (self.folder / f"{name}.go").touch()

    def notices(self, what: str) -> None:
        """Wait until the worker has said something."""
        until(lambda: (what in self.log.text) or None, TIMEOUT, f"{what!r} in the log")

    def restart(self) -> None:
        """Kill RabbitMQ and start it when the worker has noticed."""
        self.server.kill()
        self.notices("consumer: Cannot connect to")
        self.server.start()


def wait_for_a_sign(folder: Path, name: str) -> int:
    """Say that a task has begun and wait until it may end; return in which process."""
    (folder / f"{name}.begun.{os.getpid()}").touch()
    while not (folder / f"{name}.go").exists():
        time.sleep(0.02)
    return os.getpid()


@pytest.fixture
def stage(
    rabbitmq_server: RabbitServer, rabbitmq_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[Stage]:
    caplog.set_level(logging.INFO)
    app = Celeriac("proj", broker=rabbitmq_url, backend=f"sqlite:///{tmp_path}/results.db")
    app.conf.worker_lease_seconds = 3.0

    @app.task(name="late", bind=True, acks_late=True)
    def late(self: Task[..., Any], name: str) -> tuple[int, bool]:
        return wait_for_a_sign(tmp_path, name), self.request.delivery_info["redelivered"]

    @app.task(name="early")
    def early(name: str) -> int:
        return wait_for_a_sign(tmp_path, name)

    with app:
        yield Stage(app, tmp_path, rabbitmq_server, caplog)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_running_late_tasks_are_cancelled_when_that_is_wished(stage: Stage) -> None:
    # Given a task of each kind that runs
    stage.app.conf.worker_cancel_long_running_tasks_on_connection_loss = True
    with start_worker(stage.app, pool="prefork", concurrency=2):
        late, early = stage.app.tasks["late"].delay("late"), stage.app.tasks["early"].delay("early")
        [first] = stage.await_beginnings("late", 1)
        [only] = stage.await_beginnings("early", 1)

        # When the broker restarts
        stage.restart()

        # Then the late one was killed, and runs again; the other one went on
        stage.notices(CANCELLED)
        until(lambda: True if not is_alive(first) else None, TIMEOUT, "the process to be gone")
        _, second = stage.await_beginnings("late", 2)
        stage.release("late")
        stage.release("early")
        assert late.get(timeout=TIMEOUT) == [second, True]
        assert early.get(timeout=TIMEOUT) == only
    assert stage.begun("early") == [only]
    assert stage.log.text.count(CANCELLED) == 1


def test_running_tasks_go_on_otherwise(stage: Stage) -> None:
    # Given a task that runs and is acknowledged late
    with start_worker(stage.app, pool="prefork", concurrency=1):
        result = stage.app.tasks["late"].delay("late")
        [first] = stage.await_beginnings("late", 1)

        # When the broker restarts, and the task ends later
        stage.restart()
        until(lambda: stage.log.text.count("Connected to") == 2 or None, TIMEOUT, "the worker to be back")
        stage.release("late")

        # Then it has a result of the process it ran in all the time
        assert result.get(timeout=TIMEOUT)[0] == first
    assert CANCELLED not in stage.log.text


@pytest.mark.parametrize(("reduced", "fetched"), [(True, 4), (False, 8)])
def test_less_is_fetched_while_tasks_go_on_unless_that_is_not_wished(
    stage: Stage, reduced: bool, fetched: int
) -> None:
    # Given two tasks that take all slots, and ten behind them
    stage.app.conf.worker_enable_prefetch_count_reduction = reduced
    early = stage.app.tasks["early"]
    with start_worker(stage.app, pool="prefork", concurrency=2, prefetch_multiplier=4):
        running = [early.delay(name) for name in ("one", "two")]
        stage.await_beginnings("one", 1)
        stage.await_beginnings("two", 1)
        waiting = [early.delay("others") for _ in range(10)]

        # When the broker restarts
        stage.restart()

        # Then so many are fetched of the ten
        left = 10 - fetched
        size = stage.app.transport.size
        until(lambda: True if 0 < size("celery") <= left else None, TIMEOUT, "messages to be fetched")
        assert size("celery") == left
        if reduced:
            stage.notices(REDUCED)

        # And as many as before when the two have ended
        for name in ("one", "two", "others"):
            stage.release(name)
        for result in (*running, *waiting):
            result.get(timeout=TIMEOUT)
    assert (REDUCED in stage.log.text) == (RESTORED in stage.log.text) == reduced
