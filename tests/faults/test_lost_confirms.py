"""The connection breaks after the broker has a message and before it could say so: the call runs once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.testing.worker import start_worker
from faults.proxy import Proxy
from servers import Server
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
