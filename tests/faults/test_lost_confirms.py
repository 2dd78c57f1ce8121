"""The connection breaks after the broker has a message and before it could say so: the call runs once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.testing.worker import start_worker
from faults.proxy import Proxy
from servers import RabbitServer, Server
from servers.ports import LOOPBACK

TIMEOUT = 60.0
CONFIRMS = {"redis": b":2\r\n", "rabbitmq": b"\x00\x3c\x00\x50"}  # the length of the list; basic.ack


@pytest.fixture(params=["redis", "rabbitmq"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(request: pytest.FixtureRequest, kind: str) -> Server:
    server: Server = request.getfixturevalue(f"{kind}_server")
    return server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


def new_app(url: str, tmp_path: Path, runs: list[Any]) -> Celeriac:
    app = Celeriac("proj", broker=url, backend=f"sqlite:///{tmp_path}/results.db", set_as_current=False)

    @app.task(bind=True, name="proj.note")
    def note(self: Any) -> None:
        runs.append(self.request.delivery_info["redelivered"])

    return app


def test_what_is_sent_again_in_doubt_runs_once(
    kind: str, server: Server, proxy: Proxy, tmp_path: Path
) -> None:
    url = server.fresh_url()  # type: ignore[attr-defined] # both have it
    runs: list[bool] = []
    client = new_app(url.replace(f"{LOOPBACK}:{server.port}", f"{LOOPBACK}:{proxy.port}"), tmp_path, runs)
    worker = new_app(url, tmp_path, runs)
    client.send_task("proj.note").forget()  # the connection is there, the queue declared
    trap = proxy.trap("to_client", CONFIRMS[kind], keep=0)

    client.send_task("proj.note", task_id="doubtful")
    assert trap.sprung.wait(TIMEOUT)
    assert worker.transport.size("celery") == 3  # one of them twice
    last = client.send_task("proj.note")
    with start_worker(worker, pool="solo"):
        last.get(timeout=TIMEOUT)

    assert runs == [False, False, False]
    assert worker.transport.size("celery") == 0
    client.close()
    worker.close()


def test_what_is_sent_in_doubt_and_again_to_the_next_broker_of_a_list_is_told_there(
    rabbitmq_server: RabbitServer, tmp_path: Path
) -> None:
    # Given a client whose broker vanishes after it has a message and before it could say so
    first, second = rabbitmq_server.fresh_url(), rabbitmq_server.fresh_url()
    runs: list[bool] = []
    with Proxy(rabbitmq_server.port) as proxy:
        client = new_app(first.replace(f":{rabbitmq_server.port}/", f":{proxy.port}/"), tmp_path, runs)
        client.conf.broker_url = [client.conf.broker_url, second]
        client.send_task("proj.note", queue="other")  # the connection is there
        trap = proxy.trap("to_client", CONFIRMS["rabbitmq"])
        proxy.refuse()

        # When a call is sent
        client.send_task("proj.note", task_id="doubtful")
        assert trap.sprung.is_set()
        client.close()

    # Then both brokers have it, and who runs it at the second one knows that
    workers = [new_app(url, tmp_path, runs) for url in (first, second)]
    assert [worker.transport.size("celery") for worker in workers] == [1, 1]
    with start_worker(workers[1], pool="solo"):
        workers[1].AsyncResult("doubtful").get(timeout=TIMEOUT)
    assert runs == [True]
    for worker in workers:
        worker.close()
