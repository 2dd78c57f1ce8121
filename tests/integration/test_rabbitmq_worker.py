"""A whole worker on RabbitMQ: tasks there, results back, and a broker that comes and goes."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac, Task
from celeriac.errors import TransportError
from celeriac.testing.worker import start_worker
from servers import RabbitServer, until

PATIENCE_SECONDS = 60.0


@pytest.fixture
def app(rabbitmq_url: str) -> Iterator[Celeriac]:
    app = Celeriac("rabbits", broker=rabbitmq_url, backend="rpc://")

    @app.task(name="rabbits.add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="rabbits.fail")
    def fail() -> None:
        raise ValueError("boom", 42)

    @app.task(name="rabbits.replaced", bind=True)
    def replaced(self: Task[..., int], x: int) -> int:
        return self.replace(add.s(x, 1))  # type: ignore[no-any-return]

    app.finalize()
    yield app
    app.close()


def test_tasks_run_and_results_come_back(app: Celeriac) -> None:
    add, fail = app.tasks["rabbits.add"], app.tasks["rabbits.fail"]

    with start_worker(app, pool="threads", concurrency=2):
        results = [add.delay(n, 1) for n in range(50)]
        failure = fail.delay()

        assert [result.get(timeout=PATIENCE_SECONDS) for result in results] == [n + 1 for n in range(50)]
        with pytest.raises(ValueError, match="boom"):
            failure.get(timeout=PATIENCE_SECONDS)


def test_the_result_of_a_task_that_is_replaced_comes_back(app: Celeriac) -> None:
    with start_worker(app, pool="prefork", concurrency=1):
        result = app.tasks["rabbits.replaced"].delay(2)

        assert result.get(timeout=PATIENCE_SECONDS) == 3


def test_a_worker_goes_on_when_rabbitmq_is_back(app: Celeriac, rabbitmq_server: RabbitServer) -> None:
    add = app.tasks["rabbits.add"]
    with start_worker(app, pool="threads", concurrency=2):
        assert add.delay(1, 1).get(timeout=PATIENCE_SECONDS) == 2

        rabbitmq_server.kill()
        with pytest.raises(TransportError):
            add.apply_async((1, 2), retry=False)
        rabbitmq_server.start()
        back = time.monotonic()
        result = add.delay(1, 3).get(timeout=PATIENCE_SECONDS)
        took = time.monotonic() - back

    assert result == 4
    assert took < 8.0  # the node's pauses between attempts, and a slow machine


def test_a_child_that_has_served_its_time_leaves_nothing_behind_that_it_sent(
    rabbitmq_server: RabbitServer, rabbitmq_url: str
) -> None:
    asked, answering = multiprocessing.Pipe()
    options = {"confirm_publish": False}
    with Celeriac("rabbits", broker=rabbitmq_url, broker_transport_options=options) as app:

        @app.task(name="rabbits.many")
        def many() -> None:
            app.send_task("rabbits.later", queue="later")
            answering.send(os.getpid())
            answering.recv()
            for _ in range(2000):
                app.send_task("rabbits.later", queue="later")
            answering.send("sent")

        app.finalize()
        with start_worker(app, pool="prefork", concurrency=1, max_tasks_per_child=1, queues="celery"):
            many.delay()
            child = asked.recv()
            rabbitmq_server.freeze()  # what is sent now lies in buffers
            asked.send("go on")
            assert asked.recv() == "sent"
            with pytest.raises(TimeoutError):  # it waits until RabbitMQ has taken everything in
                until(lambda: None if is_alive(child) else True, 2.0, "the child to end")
            rabbitmq_server.thaw()
            until(lambda: None if is_alive(child) else True, PATIENCE_SECONDS, "the child to end")

            # RabbitMQ says how much waits before it has worked off what has come.
            until(lambda: app.transport.size("later") == 2001 or None, PATIENCE_SECONDS, "2,001 messages")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
