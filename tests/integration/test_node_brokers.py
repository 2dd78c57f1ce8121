"""Whole workers with processes on the real brokers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from celeriac.app import Celeriac
from celeriac.canvas import chain, chord
from celeriac.errors import NotRegistered, WorkerLostError
from celeriac.task import Task
from celeriac.testing.worker import start_worker

TIMEOUT = 60.0


@pytest.fixture
def app(across_processes: Celeriac) -> Celeriac:
    return across_processes


def dead(app: Celeriac) -> list[str]:
    return [letter.reason for letter in app.transport.graveyard().find("celery")]


def test_many_tasks_run_once_each(app: Celeriac, tmp_path: Path) -> None:
    @app.task
    def note(number: int) -> int:
        with (tmp_path / f"ran-{number}").open("a") as file:
            file.write("x")
        return number * 2

    with start_worker(app, pool="prefork", concurrency=2):
        results = [note.delay(number) for number in range(200)]
        values = [result.get(timeout=TIMEOUT) for result in results]

    assert values == [number * 2 for number in range(200)]
    assert [(tmp_path / f"ran-{number}").read_text() for number in range(200)] == ["x"] * 200
    assert app.transport.size("celery") == 0
    assert dead(app) == []


def test_workflows_and_retries_run(app: Celeriac) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task
    def total(numbers: Sequence[int]) -> int:
        return sum(numbers)

    @app.task(bind=True)
    def again(self: Task) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0.1)
        return self.request.retries

    with start_worker(app, pool="prefork", concurrency=2):
        assert chain(add.s(1, 2), add.s(3), add.s(4)).delay().get(timeout=TIMEOUT) == 10
        assert chord([add.s(i, 1) for i in range(5)], total.s()).delay().get(timeout=TIMEOUT) == 15
        assert again.delay().get(timeout=TIMEOUT) == 2


def test_an_eta_is_kept(app: Celeriac) -> None:
    @app.task
    def when() -> float:
        return time.time()

    with start_worker(app, pool="prefork", concurrency=1):
        sent = time.time()
        ran = when.apply_async(countdown=1).get(timeout=TIMEOUT)

    assert 0.99 <= ran - sent < 2  # started within a second of its time


def test_a_killed_child_loses_one_task_only(app: Celeriac) -> None:
    @app.task
    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    with start_worker(app, pool="prefork", concurrency=2):
        others = [add.delay(i, 1) for i in range(30)]
        doomed = kill.delay()
        others += [add.delay(i, 1) for i in range(30, 60)]
        assert [other.get(timeout=TIMEOUT) for other in others] == [i + 1 for i in range(60)]
        with pytest.raises(WorkerLostError):
            doomed.get(timeout=TIMEOUT)

    assert len(dead(app)) == 1


def test_a_late_task_runs_again_after_its_child_was_killed(app: Celeriac, tmp_path: Path) -> None:
    @app.task(acks_late=True, reject_on_worker_lost=True)
    def kill_once() -> str:
        if not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "survived"

    with start_worker(app, pool="prefork", concurrency=1):
        assert kill_once.delay().get(timeout=TIMEOUT) == "survived"


def test_an_unknown_task_becomes_a_dead_letter(app: Celeriac) -> None:
    with start_worker(app, pool="prefork", concurrency=1), pytest.raises(NotRegistered):
        app.send_task("nope.nope").get(timeout=TIMEOUT)

    assert len(dead(app)) == 1


def test_prefetched_tasks_return_at_once(app: Celeriac, tmp_path: Path) -> None:
    @app.task
    def slow(number: int) -> int:
        (tmp_path / f"begun-{number}").touch()
        while not (tmp_path / "go").exists():
            time.sleep(0.01)
        return number

    with start_worker(app, pool="prefork", concurrency=1, prefetch_multiplier=4) as worker:
        results = [slow.delay(number) for number in range(4)]
        end = time.monotonic() + TIMEOUT
        while not any(tmp_path.glob("begun-*")) and time.monotonic() < end:
            time.sleep(0.01)
        worker.stop("warm")
        while app.transport.size("celery") < 3 and time.monotonic() < end:
            time.sleep(0.01)
        waiting = app.transport.size("celery")
        (tmp_path / "go").touch()

    assert waiting == 3
    with start_worker(app, pool="prefork", concurrency=1):
        assert [result.get(timeout=TIMEOUT) for result in results] == [0, 1, 2, 3]


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_a_task_that_asks_for_it_is_kept_when_its_last_retry_has_failed(app: Celeriac, late: bool) -> None:
    @app.task(
        autoretry_for=(KeyError,), max_retries=1, default_retry_delay=0, acks_late=late, dead_letter=True
    )
    def kept() -> None:
        raise KeyError("no such customer")

    @app.task(autoretry_for=(KeyError,), max_retries=1, default_retry_delay=0, acks_late=late)
    def forgotten() -> None:
        raise KeyError("no such customer")

    with start_worker(app, pool="threads", concurrency=1):
        for task in (kept, forgotten):
            with pytest.raises(KeyError):
                task.delay().get(timeout=TIMEOUT)

    [letter] = app.transport.graveyard().find("celery")
    assert (letter.kind, letter.envelope.headers["task"]) == ("exhausted", kept.name)
    assert letter.envelope.headers["retries"] == 1
    assert "no such customer" in letter.reason
