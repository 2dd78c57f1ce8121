"""The broker goes away and comes back while a worker runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.app import Celeriac
from celeriac.errors import CeleriacError
from celeriac.testing.worker import start_worker
from servers import Server

TIMEOUT = 60.0
RESUME_SECONDS = 5.0


@pytest.fixture(params=["redis", "rabbitmq"])
def server(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue(f"{request.param}_server")
    return server


@pytest.fixture
def app(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Iterator[Celeriac]:
    url = server.fresh_url()  # type: ignore[attr-defined]
    app = Celeriac("proj", broker=url, backend=f"sqlite:///{tmp_path}/results.db", set_as_current=False)
    app.conf.worker_lease_seconds = 3.0
    yield app
    app.close()


def first_success_after(app: Celeriac, task: object, since: float) -> float:
    """Send until a task gets through and return how many seconds after a moment it has run."""
    while True:
        try:
            task.delay(1).get(timeout=RESUME_SECONDS)  # type: ignore[attr-defined]
        except CeleriacError:
            assert time.monotonic() - since < TIMEOUT, "nothing got through"
        else:
            return time.monotonic() - since


def test_the_worker_resumes_soon_after_the_broker_is_back(
    app: Celeriac, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    @app.task
    def echo(x: int) -> int:
        return x

    with start_worker(app, pool="threads"):
        assert echo.delay(1).get(timeout=TIMEOUT) == 1
        server.kill()
        end = time.monotonic() + TIMEOUT
        while "Trying again in" not in caplog.text and time.monotonic() < end:
            time.sleep(0.05)
        server.start()
        took = first_success_after(app, echo, time.monotonic())

    assert took < RESUME_SECONDS
    assert "consumer: Connection to broker lost. Trying to re-establish the connection..." in caplog.text
    assert "consumer: Cannot connect to" in caplog.text


def test_a_task_that_runs_through_an_outage_keeps_its_result(app: Celeriac, server: Server) -> None:
    begun, go = threading.Event(), threading.Event()
    runs: list[int] = []

    @app.task
    def slow() -> str:
        runs.append(1)
        begun.set()
        go.wait(TIMEOUT)
        return "done"

    @app.task
    def echo(x: int) -> int:
        return x

    with start_worker(app, pool="threads", concurrency=2):
        result = slow.delay()
        assert begun.wait(TIMEOUT)
        time.sleep(0.1)  # so that its start has been told
        server.kill()
        server.start()
        go.set()
        assert result.get(timeout=TIMEOUT) == "done"
        first_success_after(app, echo, time.monotonic())

    assert runs == [1]


def test_a_broker_that_hangs_is_survived(app: Celeriac, server: Server) -> None:
    @app.task
    def echo(x: int) -> int:
        return x

    with start_worker(app, pool="threads"):
        assert echo.delay(1).get(timeout=TIMEOUT) == 1
        server.freeze()
        time.sleep(1)
        server.thaw()
        took = first_success_after(app, echo, time.monotonic())

    assert took < RESUME_SECONDS


def test_commands_are_heard_soon_after_the_broker_is_back(app: Celeriac, server: Server) -> None:
    def answers() -> bool:
        try:
            return bool(app.control.ping(timeout=0.5) == [{"w1@here": {"ok": "pong"}}])
        except CeleriacError:
            return False

    with start_worker(app, pool="threads", hostname="w1@here"):
        assert answers()
        server.kill()
        server.start()
        since = time.monotonic()
        while not answers():
            assert time.monotonic() - since < TIMEOUT, "no command is heard"
        took = time.monotonic() - since

    assert took < RESUME_SECONDS
