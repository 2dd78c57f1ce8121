"""Workflows with a real worker: over the embedded broker, over memory and over Redis, in threads."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, chain, chord, group
from celeriac.testing.worker import start_worker
from servers import RedisServer


@pytest.fixture(params=["sqlite", "memory", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celeriac]:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        broker = backend = server.fresh_url()
    elif request.param == "memory":
        broker = backend = f"memory://{tmp_path.name}"
    else:
        broker, backend = f"sqlite:///{tmp_path}/queue.db", None
    with Celeriac("proj", broker=broker, backend=backend) as app:
        yield app


def test_workflows_of_all_kinds_come_to_their_results(app: Celeriac) -> None:
    told: queue.Queue[Any] = queue.Queue()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task
    def fail(*args: Any) -> None:
        raise KeyError("x")

    @app.task(bind=True, default_retry_delay=0)
    def flaky(self: Any) -> int:
        if not self.request.retries:
            raise self.retry()
        return int(self.request.retries)

    @app.task(bind=True)
    def delegate(self: Any) -> Any:
        return self.replace(group(add.s(1, 1), add.s(2, 2)))

    @app.task
    def on_error(request: Any, exc: BaseException, traceback: str) -> None:
        told.put((request.id, repr(exc)))

    with start_worker(app, pool="threads", concurrency=2):
        sent = [
            (chain(add.s(1, 2), add.s(3)), 6),
            (group(add.s(n, n) for n in range(10)), [2 * n for n in range(10)]),
            (chord([add.s(n, n) for n in range(10)], total.s()), 90),
            (add.s(1, 1) | group(add.s(1), add.s(2)) | total.s() | add.s(100), 107),
            (chord([chord([add.s(1, 1)], total.s()), add.s(2, 2)], total.s()), 6),
            (flaky.s(), 1),
            (delegate.s() | total.s(), 6),
        ]
        results = [(workflow.apply_async(), value) for workflow, value in sent]
        assert [result.get(timeout=20) for result, _ in results] == [value for _, value in results]

        failed = chain(add.s(1, 2), fail.s().on_error(on_error.s()), add.s(1)).apply_async()
        with pytest.raises(KeyError):
            failed.get(timeout=20)
        assert told.get(timeout=20) == (failed.parent.id, "KeyError('x')")
        assert "raise KeyError" in failed.parent.traceback

        broken = chord([add.s(1, 1), fail.s()])(total.s())
        with pytest.raises(KeyError):
            broken.get(timeout=20)
