"""The result store goes away while tasks run: soon after it is back it has results and chords."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.canvas import chord
from celeriac.errors import CeleriacError
from celeriac.testing.worker import start_worker
from servers import until

TIMEOUT = 60.0
STORED_SECONDS = 5.0
TRYING = " again in "


@dataclass
class Place:
    """An app with its results in a server of which something can be said to break."""

    app: Celeriac
    server: Any  # Any: one of four kinds
    log: pytest.LogCaptureFixture
    go: threading.Event  # tasks end when it is set
    ended: list[int]

    def kill(self) -> Callable[[], None]:
        """Kill the server; return what starts it again."""
        self.server.kill()
        return self.server.start  # type: ignore[no-any-return]

    def freeze(self) -> Callable[[], None]:
        """Stop the server; return what continues it."""
        self.server.freeze()
        return self.server.thaw  # type: ignore[no-any-return]

    def tasks_end(self, *, noticed: bool) -> None:
        """Let tasks end, and wait until some have, and until the worker cannot tell of it."""
        self.go.set()
        until(lambda: self.ended or None, TIMEOUT, "tasks to end")
        if noticed:
            until(lambda: (TRYING in self.log.text) or None, TIMEOUT, "the worker to notice")


@pytest.fixture
def place(
    request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[Place]:
    caplog.set_level(logging.INFO)
    server = request.getfixturevalue(f"{request.param}_server")
    broker = f"sqlite:///{tmp_path}/broker.db"
    match request.param:
        case "redis":
            backend = server.fresh_url()
        case "postgres":
            backend = server.fresh_url("db+postgresql")
        case "memcached":
            backend = server.url
        case _:
            broker, backend = server.fresh_url(), "rpc://"
    app = Celeriac("proj", broker=broker, backend=backend, set_as_current=False)
    app.conf.worker_lease_seconds = 3.0
    go = threading.Event()
    ended: list[int] = []

    @app.task(name="echo")
    def echo(x: int) -> int:
        return x

    @app.task(name="slow")
    def slow(x: int) -> int:
        assert go.wait(TIMEOUT)
        ended.append(x)
        return x

    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    app.finalize()
    with app:
        yield Place(app, server, caplog, go, ended)
        go.set()


def outcome(result: Any, since: float) -> tuple[Any, float]:
    """Ask until the store answers; return the result and how long it took from a moment on."""
    while True:
        try:
            return result.get(timeout=TIMEOUT), time.monotonic() - since
        except CeleriacError:
            assert time.monotonic() - since < TIMEOUT, "the store does not answer"
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("redis", Place.kill),
        ("postgres", Place.kill),
        ("postgres", Place.freeze),
        ("memcached", Place.kill),
        ("rabbitmq", Place.kill),
    ],
    indirect=["place"],
)
def test_results_are_stored_soon_after_the_store_is_back(
    place: Place, fault: Callable[[Place], Callable[[], None]]
) -> None:
    tasks = place.app.tasks
    with start_worker(place.app, pool="threads", concurrency=2):
        # Given tasks that run
        assert tasks["echo"].delay(1).get(timeout=TIMEOUT) == 1
        results = [tasks["slow"].delay(number) for number in range(4)]

        # When they end while the store is away
        mend = fault(place)
        # A database that is stopped is waited for: nothing tells it from one that is busy.
        place.tasks_end(noticed=fault is Place.kill)
        mend()
        back = time.monotonic()

        # Then their results are there, and the worker goes on
        for number, result in enumerate(results):
            value, seconds = outcome(result, back)
            assert value == number
            assert seconds < STORED_SECONDS
        assert tasks["echo"].delay(2).get(timeout=TIMEOUT) == 2


@pytest.mark.parametrize("place", ["redis", "postgres"], indirect=True)
def test_a_chord_is_joined_soon_after_the_store_is_back(place: Place) -> None:
    tasks = place.app.tasks
    with start_worker(place.app, pool="threads", concurrency=2):
        # Given a chord whose parts run
        result = chord([tasks["slow"].s(number) for number in range(4)])(tasks["total"].s())

        # When they end while the store is away
        mend = place.kill()
        place.tasks_end(noticed=True)
        mend()

        # Then its body has run
        value, seconds = outcome(result, time.monotonic())
    assert value == 6
    assert seconds < STORED_SECONDS
