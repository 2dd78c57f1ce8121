"""A broker that does not take messages: `delay()` ends when its budget does, and leaves nothing behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import psutil
import pytest

from celeriac.app import Celeriac
from celeriac.errors import TransportError
from celeriac.task import Task
from faults.proxy import Proxy
from servers import until

PATIENCE_SECONDS = 60.0
BUDGET_SECONDS = 0.25
SLACK_SECONDS = 1.0  # less than any other wait that could end a call
FAILURES, THREADS = 500, 20


@dataclass
class Scene:
    """A client behind a proxy."""

    app: Celeriac
    echo: Task
    proxy: Proxy
    server: Any  # Any: a RedisServer or a RabbitServer

    @contextmanager
    def broken(self, how: str) -> Iterator[None]:
        """Break the way to the broker for a while."""
        match how:
            case "black hole":
                self.proxy.block()
                yield
                self.proxy.heal()
            case "stopped":
                self.server.freeze()
                yield
                self.server.thaw()
            case "refused":
                self.proxy.refuse()
                self.proxy.cut()
                yield
                self.proxy.admit()
            case "memory alarm":
                self.server.evaluate("rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}).")
                yield
                self.server.evaluate("rabbit_alarm:clear_alarm({resource_limit, memory, node()}).")

    def fails(self, _: int) -> float:
        """Send something in vain and return how long that took."""
        since = time.monotonic()
        with pytest.raises(TransportError):
            self.echo.apply_async((1,), retry=False)
        return time.monotonic() - since

    def arrives(self) -> None:
        """Send something that arrives."""
        self.echo.apply_async((1,), retry=False)


@pytest.fixture(params=["redis", "rabbitmq"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    server = request.getfixturevalue(f"{request.param}_server")
    url: str = server.fresh_url()
    with Proxy(server.port) as proxy:
        app = Celeriac(
            "proj", broker=url.replace(f":{server.port}/", f":{proxy.port}/"), set_as_current=False
        )
        app.conf.publish_timeout_seconds = PATIENCE_SECONDS

        @app.task
        def echo(x: int) -> int:
            return x

        yield Scene(app, echo, proxy, server)
        server.thaw()
        app.close()


class Lateness:
    """How much later than it should a bare wait ends on this machine, among the same threads."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._measure)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _measure(self) -> None:
        over = False
        while not over:
            since = time.monotonic()
            over = self._over.wait(BUDGET_SECONDS)
            self.seconds = max(self.seconds, time.monotonic() - since - BUDGET_SECONDS)


def open_things(scene: Scene) -> dict[str, int]:
    return {
        "descriptors": psutil.Process().num_fds(),
        "threads": threading.active_count(),
        "connections": scene.proxy.connections,
    }


def five_hundred_failures_leave_nothing(scene: Scene, how: str) -> None:
    # Given a client that has sent from as many threads as it will
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda _: scene.arrives(), range(THREADS)):
            pass
    before = open_things(scene)
    scene.app.conf.publish_timeout_seconds = BUDGET_SECONDS

    # When the broker takes nothing
    with scene.broken(how), Lateness() as lateness, ThreadPoolExecutor(THREADS) as pool:
        took = max(pool.map(scene.fails, range(FAILURES)))

    # Then each call has ended in time, and when the broker is back all is as before
    assert took < BUDGET_SECONDS + SLACK_SECONDS + lateness.seconds
    scene.app.conf.publish_timeout_seconds = PATIENCE_SECONDS
    scene.arrives()

    def as_before() -> bool | None:
        now = open_things(scene)
        return all(now[name] <= before[name] for name in before) or None

    try:
        until(as_before, 10.0, "what was open to be closed")
    except TimeoutError as exc:
        raise AssertionError(f"before {before}, now {open_things(scene)}") from exc


@pytest.mark.parametrize("how", ["black hole", "stopped", "refused"])
def test_five_hundred_failures_end_in_time_and_leave_nothing(scene: Scene, how: str) -> None:
    five_hundred_failures_leave_nothing(scene, how)


@pytest.mark.parametrize("scene", ["rabbitmq"], indirect=True)
def test_five_hundred_failures_under_a_memory_alarm_as_well(scene: Scene) -> None:
    five_hundred_failures_leave_nothing(scene, "memory alarm")


@pytest.mark.parametrize("scene", ["redis"], indirect=True)
@pytest.mark.parametrize("when", ["before it is asked for the lock", "after that"])
def test_calls_that_keep_others_out_or_wait_for_others_end_within_the_same_budget(
    scene: Scene, when: str
) -> None:
    # Given tasks whose calls ask the broker for something before they are sent
    app = scene.app
    kinds: list[dict[str, Any]] = [{"unique": "until_done"}, {"throttle": 60}, {"debounce": 60}]
    tasks = [app.task(name=f"kind {number}", **kind)(lambda x: x) for number, kind in enumerate(kinds)]
    for task in tasks:
        task.delay("arrives")
    app.conf.publish_timeout_seconds = BUDGET_SECONDS

    # When the broker hangs
    if when == "after that":
        app.hooks.before_task_publish.connect(lambda **facts: scene.proxy.block(), weak=False)
    for task in tasks:
        if when != "after that":
            scene.proxy.block()
        with Lateness() as lateness:
            since = time.monotonic()
            with pytest.raises(TransportError):
                task.delay("does not")
            took = time.monotonic() - since
        scene.proxy.heal()

        # Then each call has ended in time
        assert took < BUDGET_SECONDS + SLACK_SECONDS + lateness.seconds


def test_a_call_of_which_monitors_cannot_be_told_ends_within_the_same_budget(scene: Scene) -> None:
    # Given a client that tells monitors of its calls
    app = scene.app
    app.conf.task_send_sent_event = True
    scene.arrives()
    app.conf.publish_timeout_seconds = BUDGET_SECONDS

    # When the broker hangs as soon as it has a call
    app.hooks.after_task_publish.connect(lambda **facts: scene.proxy.block(), weak=False)
    with Lateness() as lateness:
        since = time.monotonic()
        scene.arrives()
        took = time.monotonic() - since
    scene.proxy.heal()

    # Then the call has ended in time, and well
    assert took < BUDGET_SECONDS + SLACK_SECONDS + lateness.seconds
