"""Celery's contract for acknowledgements, on every broker and with threads and processes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.errors import Ignore, Reject, TimeLimitExceeded
from celeriac.task import Task
from celeriac.testing.worker import start_worker

TIMEOUT = 60.0


@pytest.fixture
def app(across_processes: Celeriac) -> Celeriac:
    return across_processes


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_task_ends_its_message_as_it_says(app: Celeriac, tmp_path: Path, pool: str) -> None:
    def note(task: Task) -> int:
        """Note one more run, redelivered or not; return how many there were."""
        with (tmp_path / task.name).open("a") as file:
            file.write("R" if task.request.delivery_info["redelivered"] else "x")
        return len((tmp_path / task.name).read_text())

    def make(name: str, ending: Exception | None, **options: bool) -> Task:
        def body(self: Task) -> str:
            if note(self) == 1 and ending is not None:
                raise ending
            return "done"

        task: Task = app.task(bind=True, name=name, **options)(body)
        return task

    late = {"acks_late": True}
    dropped = [
        make("late-reject", Reject("no", requeue=False), **late),
        make("early-reject", Reject("no", requeue=False)),
        make("early-requeue", Reject("no", requeue=True)),
        make("late-ignore", Ignore(), **late),
        make("early-ignore", Ignore()),
    ]
    failed = [
        make("late-failure", KeyError("x"), **late),
        make("late-failure-refused", KeyError("x"), acks_on_failure_or_timeout=False, **late),
        make("early-failure", KeyError("x")),
    ]
    requeued = make("late-requeue", Reject("later", requeue=True), **late)

    with start_worker(app, pool=pool, concurrency=1):
        silent = [task.delay() for task in dropped]
        told = [task.delay() for task in failed]
        assert requeued.delay().get(timeout=TIMEOUT) == "done"
        states = [result.get(timeout=TIMEOUT, propagate=False) and result.state for result in told]
        end = time.monotonic() + TIMEOUT
        while not all((tmp_path / task.name).exists() for task in dropped) and time.monotonic() < end:
            time.sleep(0.01)

    assert states == ["FAILURE"] * 3
    assert {task.name: (tmp_path / task.name).read_text() for task in [*dropped, *failed]} == {
        task.name: "x" for task in [*dropped, *failed]
    }
    assert (tmp_path / "late-requeue").read_text() == "xR"
    assert app.backend is not None
    assert app.backend.fetch([str(result.id) for result in silent]) == {}
    assert app.transport.size("celery") == 0
    assert app.transport.graveyard().find("celery") == []


def test_failures_and_timeouts_may_end_their_messages_differently(app: Celeriac, tmp_path: Path) -> None:
    def make(name: str, **options: Any) -> Task:
        def body(ending: str) -> str:
            path = tmp_path / f"{name}-{ending}"
            with path.open("a") as file:
                file.write("x")
            if len(path.read_text()) == 2:
                return "survived"
            if ending == "failure":
                raise KeyError("x")
            time.sleep(60)
            return "never"

        task: Task = app.task(name=name, acks_late=True, time_limit=1, **options)(body)
        return task

    again = make("again", acks_on_timeout=False)
    once = make("once", acks_on_failure_or_timeout=False, acks_on_timeout=True)

    with start_worker(app, pool="prefork", concurrency=2):
        assert again.delay("timeout").get(timeout=TIMEOUT) == "survived"
        for task, ending, error in (
            (again, "failure", KeyError),
            (once, "failure", KeyError),  # refused, and so gone
            (once, "timeout", TimeLimitExceeded),
        ):
            with pytest.raises(error):
                task.delay(ending).get(timeout=TIMEOUT)

    assert [(tmp_path / f"once-{ending}").read_text() for ending in ("failure", "timeout")] == ["x", "x"]
    assert app.transport.size("celery") == 0
