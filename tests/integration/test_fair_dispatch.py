"""Which of several workers has a message: one that can begin it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.node import surplus
from celeriac.testing.worker import start_worker
from worker_program import until

TIMEOUT = 30.0


@pytest.fixture
def app(across_processes: Celeriac) -> Celeriac:
    return across_processes


@pytest.fixture(params=["prefork", "threads"])
def start(
    request: pytest.FixtureRequest, app: Celeriac, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Any]:
    """Return what starts a worker of two slots, with an app of its own that has the same tasks."""
    monkeypatch.setattr(surplus, "PATIENCE_SECONDS", 0.2)  # a suite has less of it

    @contextmanager
    def start_one(name: str) -> Iterator[None]:
        own = Celeriac(
            "proj", broker=app.conf.broker_url, backend=app.conf.result_backend, set_as_current=False
        )
        for task in app.tasks.values():
            if not task.name.startswith("celery."):
                own.task(name=task.name, acks_late=task.acks_late)(task.run)
        with start_worker(own, pool=request.param, concurrency=2, hostname=f"{name}@here"):
            yield

    return start_one


def test_nothing_waits_behind_long_tasks_while_another_worker_has_a_free_slot(
    app: Celeriac, start: Callable[[str], Any], tmp_path: Path
) -> None:
    def hold(name: str) -> str:
        (tmp_path / f"begun-{name}").touch()
        while not (tmp_path / f"go-{name}").exists():
            time.sleep(0.01)
        return name

    long = [app.task(name="early")(hold), app.task(name="late", acks_late=True)(hold)]
    short = [app.task(name=f"short-{late}", acks_late=late)(lambda number: number) for late in (False, True)]

    def run(numbers: range) -> list[Any]:
        return [short[number % 2].delay(number) for number in numbers]

    def take_two(worker: str) -> list[Any]:
        return [task.delay(f"{worker}{place}") for place, task in enumerate(long)]

    def begun(count: int) -> bool:
        return len(list(tmp_path.glob("begun-*"))) == count

    with ExitStack() as workers:
        # Given a worker that takes tasks for short ones and reads ahead, until long ones have its slots
        workers.enter_context(start("w1"))
        for result in run(range(40)):
            result.get(timeout=TIMEOUT)
        held = take_two("w1-")
        some = run(range(40))
        until(lambda: begun(2))

        # When another one comes, it gets all that the first had taken
        workers.enter_context(start("w2"))
        assert [result.get(timeout=TIMEOUT) for result in some] == list(range(40))

        # When that has long ones, too, then the next slot to become free runs all that came behind them
        held += take_two("w2-")
        more = run(range(40))
        until(lambda: begun(4))
        (tmp_path / "go-w1-0").touch()
        assert [result.get(timeout=TIMEOUT) for result in more] == list(range(40))
        assert [result.ready() for result in held] == [True, False, False, False]

        for name in ("w1-1", "w2-0", "w2-1"):
            (tmp_path / f"go-{name}").touch()
        assert [result.get(timeout=TIMEOUT) for result in held] == ["w1-0", "w1-1", "w2-0", "w2-1"]


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_what_cannot_begin_stays_in_its_queue(
    app: Celeriac, start: Callable[[str], Any], tmp_path: Path, late: bool
) -> None:
    @app.task(acks_late=late)
    def hold() -> None:
        while not (tmp_path / "go").exists():
            time.sleep(0.01)

    results = [hold.delay() for _ in range(5)]
    with start("w1"):
        until(lambda: app.transport.size("celery") == 3)
        (tmp_path / "go").touch()
        for result in results:
            result.get(timeout=TIMEOUT)
