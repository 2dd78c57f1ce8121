"""A worker is asked over HTTP how it is."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.errors import ConfigError, TransportError
from celeriac.node.options import NodeOptions
from celeriac.node.worker import Worker
from celeriac.testing.worker import start_worker
from health_probe import ask, figure, until
from job_factory import memory_app
from servers.ports import free_port

TIMEOUT = 60.0


class Tasks:
    """What the tasks of a test wait for."""

    def __init__(self, app: Celeriac) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

        @app.task(name="add")
        def add(x: int, y: int) -> int:
            return x + y

        @app.task(name="fail")
        def fail() -> None:
            raise ValueError("no")

        @app.task(name="again", bind=True, default_retry_delay=0)
        def again(self: Any) -> str:
            if self.request.retries == 0:
                raise self.retry()
            return "done"

        @app.task(name="wait")
        def wait() -> None:
            self.begun.set()
            self.go.wait(TIMEOUT)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "health")


@pytest.fixture
def app(path: str) -> Iterator[Celeriac]:
    app = memory_app(worker_http_address=f"unix:{path}")
    yield app
    app.close()


@pytest.fixture
def tasks(app: Celeriac) -> Iterator[Tasks]:
    tasks = Tasks(app)
    yield tasks
    tasks.go.set()


def test_a_worker_tells_what_it_has_done(app: Celeriac, tasks: Tasks, path: str) -> None:
    # Given a worker that has run tasks of every ending, and runs one with another behind it
    with start_worker(app, pool="threads", concurrency=1, hostname="one@host"):
        for name in ("add", "fail", "again"):
            result = app.send_task(name, (1, 2) if name == "add" else ())
            result.get(timeout=TIMEOUT, propagate=False)
        with pytest.raises(Exception, match="unknown"):
            app.send_task("unknown").get(timeout=TIMEOUT)
        app.send_task("wait")
        assert tasks.begun.wait(TIMEOUT)
        app.send_task("add", (1, 2))

        # When it is asked
        _, text = ask(path, "/metrics")
        tasks.go.set()

    # Then it tells them all
    assert figure(text, 'celeriac_tasks_total{task="add",outcome="success"}') == 1
    assert figure(text, 'celeriac_tasks_total{task="fail",outcome="failure"}') == 1
    assert figure(text, 'celeriac_tasks_total{task="again",outcome="retry"}') == 1
    assert figure(text, 'celeriac_tasks_total{task="again",outcome="success"}') == 1
    assert figure(text, 'celeriac_task_run_seconds_count{task="again"}') == 2
    assert figure(text, 'celeriac_task_wait_seconds_bucket{task="add",le="+Inf"}') == 1
    assert figure(text, 'celeriac_dead_letters_total{kind="unregistered"}') == 1
    assert figure(text, 'celeriac_refused_total{reason="unregistered"}') == 1
    assert figure(text, "celeriac_slots") == figure(text, "celeriac_slots_busy") == 1
    assert figure(text, 'celeriac_queue_messages{queue="celery"}') in (0, 1)  # the latest is on its way
    assert figure(text, "celeriac_broker_up") == figure(text, "celeriac_ready") == 1
    assert 'node="one@host"' in text


def test_what_waits_in_the_queue_is_told_with_its_age(app: Celeriac, tasks: Tasks, path: str) -> None:
    app.conf.worker_prefetch_multiplier = 2
    with start_worker(app, pool="threads", concurrency=1):
        app.send_task("wait")
        assert tasks.begun.wait(TIMEOUT)
        for _ in range(3):
            app.send_task("add", (1, 2))
        app.send_task("add", (1, 2), countdown=3600)

        deadline = time.monotonic() + TIMEOUT
        while True:
            _, text = ask(path, "/metrics")
            if figure(text, "celeriac_oldest_waiting_seconds") > 0 and "queue=" in text:
                break
            assert time.monotonic() < deadline, text
        tasks.go.set()

    assert figure(text, 'celeriac_queue_messages{queue="celery"}') == 3
    assert figure(text, 'celeriac_queue_ready_messages{queue="celery"}') == 2
    assert figure(text, "celeriac_held_messages") == 2
    assert 0 <= figure(text, 'celeriac_queue_oldest_seconds{queue="celery"}') < TIMEOUT
    assert 0 <= figure(text, 'celeriac_queue_taken_seconds{queue="celery"}') < TIMEOUT


def test_a_worker_that_ends_takes_no_more_but_lives(app: Celeriac, tasks: Tasks, path: str) -> None:
    with start_worker(app, pool="threads", concurrency=1) as worker:
        assert ask(path, "/livez") == ask(path, "/readyz") == (200, "ok\n")
        app.send_task("wait")
        assert tasks.begun.wait(TIMEOUT)

        worker.stop("warm")

        assert until(path, "/readyz", 503) == "It is shutting down.\n"
        assert ask(path, "/livez") == (200, "ok\n")
        tasks.go.set()
    assert not Path(path).exists()


def test_a_worker_without_its_broker_lives_and_takes_nothing(app: Celeriac, tasks: Tasks, path: str) -> None:
    # Given a broker that is away when the worker comes
    back, connect = threading.Event(), app.transport.consumer

    async def consumer(spec: Any) -> Any:
        if not back.is_set():
            raise TransportError("away")
        return await connect(spec)

    app.transport.consumer = consumer  # type: ignore[method-assign]
    worker = Worker(app, NodeOptions(hostname="one@host", concurrency=1, pool="threads"))
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        # Then it says so
        assert until(path, "/readyz", 503) == "It is starting.\n"
        assert ask(path, "/livez") == (200, "ok\n")
        text = ask(path, "/metrics")[1]
        assert figure(text, "celeriac_broker_up") == 0
        assert "queue=" not in text
    finally:
        back.set()
        worker.stop("warm")
        thread.join(TIMEOUT)


def test_whoever_asks_for_nothing_there_is_told_or_left_alone(app: Celeriac, path: str) -> None:
    with start_worker(app, pool="threads"):
        assert ask(path, "/") == (404, "There are /livez, /readyz and /metrics.\n")
        assert ask(path, "/metrics", "POST")[0] == 405
        assert ask(path, "/metrics?x=1", "HEAD") == (200, "")
        for noise in (b"\0\r\n\r\n", b"GET /" + b"x" * 100_000):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                try:
                    client.sendall(noise)
                    while client.recv(1000):
                        pass
                except ConnectionError:
                    pass
        assert ask(path, "/livez")[0] == 200


def test_an_address_that_is_taken_is_told_at_the_start() -> None:
    port = free_port()
    app = memory_app(worker_http_address=f"127.0.0.1:{port}")
    with start_worker(app, pool="threads"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        connection.request("GET", "/readyz")
        assert connection.getresponse().read() == b"ok\n"
        connection.close()
        second = Worker(app, NodeOptions(hostname="two@host", pool="threads"))

        with pytest.raises(ConfigError, match=rf"nothing can listen at http://127\.0\.0\.1:{port}: .*in use"):
            second.run()
    app.close()


def test_a_socket_that_a_killed_worker_has_left_is_no_obstacle(app: Celeriac, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)

    with start_worker(app, pool="threads"):
        assert ask(path, "/readyz")[0] == 200


def test_a_file_at_the_place_of_the_socket_is_kept(app: Celeriac, path: str) -> None:
    Path(path).write_text("mine")

    with pytest.raises(ConfigError, match="nothing can listen at unix:"):
        Worker(app, NodeOptions(hostname="one@host", pool="threads")).run()

    assert Path(path).read_text() == "mine"


def test_an_address_that_is_none_is_told_before_anything_runs(app: Celeriac) -> None:
    app.conf.worker_http_address = "9808"

    with pytest.raises(ConfigError, match="worker_http_address = '9808' is no address"):
        Worker(app, NodeOptions(hostname="one@host", pool="threads"))
