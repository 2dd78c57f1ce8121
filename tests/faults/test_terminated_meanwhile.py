"""A running task that is to be ended while its worker hears nothing is ended when that hears again."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.errors import TaskRevokedError
from celeriac.testing.worker import start_worker
from faults.proxy import Proxy
from worker_program import until

TIMEOUT = 60.0
STAMPED: dict[str, Any] = {
    "headers": {"stamps": {"customer": "acme"}},
    "stamped_headers": ["customer"],
    "customer": "acme",
}


def app_at(url: str, folder: Path) -> Celeriac:
    return Celeriac("proj", broker=url, backend=f"sqlite:///{folder}/results.db", set_as_current=False)


@pytest.fixture(params=["redis", "rabbitmq"])
def ways(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Proxy, Celeriac, Celeriac]]:
    """Yield a proxy, an app whose connections go through it, and one that goes past it."""
    server = request.getfixturevalue(f"{request.param}_server")
    url: str = server.fresh_url()
    with (
        Proxy(server.port) as proxy,
        closing(app_at(url.replace(f":{server.port}/", f":{proxy.port}/"), tmp_path)) as worker_app,
        closing(app_at(url, tmp_path)) as client_app,
    ):
        yield proxy, worker_app, client_app


def test_what_was_terminated_while_a_worker_was_cut_off_ends_once(
    ways: tuple[Proxy, Celeriac, Celeriac],
) -> None:
    proxy, worker_app, client = ways
    gate, running, told = threading.Event(), [], []

    @worker_app.task(name="stay")
    def stay(name: str) -> str:
        running.append(name)
        while not gate.is_set():  # an exception strikes where Python runs
            time.sleep(0.01)
        return name

    @worker_app.task(name="echo")
    def echo(x: int) -> int:
        return x

    def tell(request: Any, signum: int | None, **facts: Any) -> None:
        told.append((request.id, signum))

    worker_app.hooks.task_revoked.connect(tell, weak=False)
    with start_worker(worker_app, pool="threads", concurrency=6):
        try:
            by_id, listed, also_listed = (
                client.send_task("stay", (name,)) for name in ("by id", "listed", "also listed")
            )
            stamped = client.send_task("stay", ("stamped",), **STAMPED)
            spared = client.send_task("stay", ("spared",))
            until(lambda: len(running) == 5)
            # Their messages are acknowledged by then: that is not what is cut off here.
            assert client.send_task("echo", (1,)).get(timeout=TIMEOUT) == 1
            proxy.refuse()
            proxy.cut()
            client.control.revoke(by_id.id, terminate=True, signal="SIGUSR1")
            client.control.terminate([listed.id, also_listed.id])
            client.control.revoke_by_stamped_headers({"customer": "acme"}, terminate=True, signal="KILL")
            client.control.revoke(spared.id)
            assert told == []
            proxy.admit()

            for result in (by_id, listed, also_listed, stamped):
                with pytest.raises(TaskRevokedError, match="terminated"):
                    result.get(timeout=TIMEOUT)
        finally:
            proxy.admit()
            gate.set()
        assert spared.get(timeout=TIMEOUT) == "spared"
    assert sorted(told) == sorted(
        [
            (by_id.id, signal.SIGUSR1),
            (listed.id, signal.SIGTERM),
            (also_listed.id, signal.SIGTERM),
            (stamped.id, signal.SIGKILL),
        ]
    )
