"""A worker that hangs ends itself, and no other one does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.errors import ConfigError
from celeriac.message import Delivery
from celeriac.node.options import NodeOptions
from celeriac.node.worker import Worker
from health_probe import ask
from job_factory import memory_app

TIMEOUT = 60.0
WATCHDOG_SECONDS = 0.3


class Deaf:
    """A consumer that hears of nothing any more once it is told so."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.deaf = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    async def receive(self, limit: int) -> Sequence[Delivery]:
        waiting = asyncio.ensure_future(self._consumer.receive(limit))
        while not waiting.done():
            await asyncio.wait([waiting], timeout=0.01)
            if self.deaf and not waiting.done():
                waiting.cancel()
                await asyncio.Event().wait()
        return await waiting  # type: ignore[no-any-return]


class Running:
    """A worker in a thread, whose end and exit code are known."""

    def __init__(self, app: Celeriac, concurrency: int = 1) -> None:
        self.ready, self.codes = threading.Event(), list[int]()
        self.consumers: list[Deaf] = []
        connect = app.transport.consumer

        async def consumer(spec: Any) -> Deaf:
            self.consumers.append(Deaf(await connect(spec)))
            return self.consumers[-1]

        app.transport.consumer = consumer  # type: ignore[method-assign]
        options = NodeOptions(hostname="one@host", concurrency=concurrency, pool="threads")
        self.worker = Worker(app, options)
        self.thread = threading.Thread(
            target=lambda: self.codes.append(self.worker.run(self.ready.set)), daemon=True
        )
        self.thread.start()
        assert self.ready.wait(TIMEOUT)

    def end(self) -> int:
        self.worker.stop("warm")
        return self.code()

    def code(self) -> int:
        self.thread.join(TIMEOUT)
        return self.codes[0]


@pytest.fixture
def app() -> Iterator[Celeriac]:
    app = memory_app()
    app.conf.worker_watchdog_seconds = WATCHDOG_SECONDS
    app.conf.worker_prefetch_multiplier = 4
    yield app
    app.close()


class Gate:
    """What the task `wait` waits for."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()


@pytest.fixture
def gate(app: Celeriac) -> Iterator[Gate]:
    gate = Gate()

    @app.task(name="wait")
    def wait() -> str:
        gate.begun.set()
        gate.go.wait(TIMEOUT)
        return "done"

    @app.task(name="nothing")
    def nothing() -> None:
        """Do nothing."""

    app.finalize()
    yield gate
    gate.go.set()


def test_a_worker_that_hears_nothing_of_its_queue_ends_when_its_tasks_have(
    app: Celeriac, gate: Gate, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    # Given a worker that runs a task and has room for another
    health = f"{tmp_path}/health"
    app.conf.worker_http_address = f"unix:{health}"
    running = Running(app)
    slow = app.tasks["wait"].delay()
    assert gate.begun.wait(TIMEOUT)

    # When it hears of no more
    running.consumers[0].deaf = True
    running.thread.join(0.1)
    app.tasks["nothing"].delay()
    try:
        while "is not empty" not in caplog.text and running.thread.is_alive():
            running.thread.join(0.05)
        alive = ask(health, "/livez")
        gate.go.set()

        # Then it ends with an error that says so, and the task has run to its end
        assert "Nothing was received for 0.3 s although there was room, and celery at" in caplog.text
        assert alive[0] == 503
        assert alive[1].startswith("Nothing was received for 0.3 s")
        assert slow.get(timeout=TIMEOUT) == "done"
        assert running.code() == 1
    finally:
        running.worker.stop("cold")


@pytest.mark.parametrize("why", ["full", "empty", "not due"])
def test_a_worker_that_has_nothing_to_receive_goes_on(app: Celeriac, gate: Gate, why: str) -> None:
    running = Running(app)
    if why == "full":
        results = [app.tasks["wait"].delay() for _ in range(9)]
    elif why == "not due":
        results = [app.tasks["nothing"].apply_async(countdown=3600)]
    else:
        results = []

    running.thread.join(6 * WATCHDOG_SECONDS)

    assert running.thread.is_alive()
    gate.go.set()
    if why == "full":
        assert [result.get(timeout=TIMEOUT) for result in results] == ["done"] * 9
    assert running.end() == 0


@pytest.mark.parametrize("seconds", [0, -1, 0.3])
def test_a_lease_that_cannot_be_renewed_in_time_is_refused_at_the_start(
    app: Celeriac, seconds: float
) -> None:
    app.conf.worker_lease_seconds = seconds

    with pytest.raises(ConfigError, match=r"worker_lease_seconds is .* 1 s at least"):
        Worker(app, NodeOptions(hostname="one@host", pool="threads"))


def test_a_time_zone_that_there_is_not_is_told_before_anything_runs(app: Celeriac) -> None:
    app.conf.timezone = "Mars/Base"

    with pytest.raises(ConfigError, match="timezone is 'Mars/Base', and there is no such time zone"):
        Worker(app, NodeOptions(hostname="one@host", pool="threads"))
