"""Queues that are paused for all workers, on every broker."""

from __future__ import annotations

import threading

import pytest

from celeriac.app import Celeriac
from celeriac.testing.worker import start_worker
from worker_program import until

TIMEOUT = 60.0
NODE = "w1@here"


@pytest.fixture
def app(everywhere: Celeriac) -> Celeriac:
    @everywhere.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    return everywhere


def consumed(app: Celeriac, node: str) -> list[str]:
    """Return the names of the queues that a worker consumes from."""
    answers = app.control.inspect([node], timeout=TIMEOUT).active_queues()
    return [queue["name"] for queue in answers[node]]


def test_no_worker_takes_from_a_paused_queue_until_it_is_resumed(app: Celeriac) -> None:
    add = app.tasks["add"]
    with start_worker(app, pool="threads", hostname=NODE, queues=("celery", "other")):
        answers = app.control.pause_queue("celery", reply=True, timeout=TIMEOUT, limit=1)
        waiting = add.delay(1, 2)
        with start_worker(app, pool="threads", hostname="w2@here", queues=("celery",)):  # comes later
            app.control.broadcast("add_consumer", {"queue": "celery"})

            assert consumed(app, "w2@here") == []
            assert answers == [{NODE: {"ok": "paused here: celery"}}]
            assert add.apply_async((2, 2), queue="other").get(timeout=TIMEOUT) == 4
            assert app.transport.ready("celery") == 1
            assert app.control.paused_queues() == ["celery"]

            app.control.resume_queue("celery")
            assert waiting.get(timeout=TIMEOUT) == 3
            until(lambda: consumed(app, "w2@here") == ["celery"])
        until(lambda: set(consumed(app, NODE)) == {"celery", "other"})
        assert app.control.paused_queues() == []


def test_what_was_fetched_and_has_not_begun_goes_back(app: Celeriac) -> None:
    gate = threading.Event()

    @app.task(name="wait")
    def wait() -> str:
        assert gate.wait(TIMEOUT)
        return "done"

    with start_worker(app, pool="threads", hostname=NODE, prefetch_multiplier=4):
        inspect = app.control.inspect([NODE], timeout=TIMEOUT)
        running = wait.delay()
        until(lambda: inspect.active()[NODE])
        waiting = [app.tasks["add"].apply_async((number, 1), countdown=number // 4) for number in range(6)]
        until(lambda: inspect.reserved()[NODE])

        app.control.pause_queue("celery", reply=True, timeout=TIMEOUT, limit=1)
        until(lambda: app.transport.size("celery") == len(waiting))
        gate.set()
        assert running.get(timeout=TIMEOUT) == "done"
        assert (inspect.reserved()[NODE], inspect.scheduled()[NODE]) == ([], [])
        assert app.transport.size("celery") == len(waiting)

        app.control.resume_queue("celery")
        assert [result.get(timeout=TIMEOUT) for result in waiting] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("everywhere", ["memory", "sqlite", "redis"], indirect=True)
def test_a_worker_that_hears_no_commands_looks_by_itself(app: Celeriac) -> None:
    app.conf.worker_enable_remote_control = False
    app.control.pause_queue("celery")

    with start_worker(app, pool="threads", hostname=NODE):
        waiting = app.tasks["add"].delay(1, 2)
        assert app.transport.ready("celery") == 1

        app.control.resume_queue("celery")
        assert waiting.get(timeout=TIMEOUT) == 3
