"""Strategies: others' code that takes the messages of a task instead of the worker running them."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac.node.options import NodeOptions
from celeriac.node.worker import Worker
from celeriac.testing.worker import start_worker
from celery import Celery, Task
from celery.worker.request import Request, create_request_cls
from celery.worker.strategy import default, hybrid_to_proto2, proto1_to_proto2

TIMEOUT = 60.0
TAKEN: queue.SimpleQueue[Any] = queue.SimpleQueue()  # what strategies put there, for the tests


def put_all(task: Any, app: Any, consumer: Any) -> Callable[..., None]:
    """Be the strategy of tasks whose messages the test takes."""

    def take(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **kwargs: Any) -> None:
        TAKEN.put((message, ack, reject, consumer))

    return take


def odd_ones(task: Any, app: Any, consumer: Any) -> Callable[..., None]:
    """Be the strategy of tasks that run some calls as usual, forget some and fail for some."""
    usual = default(task, app, consumer)

    def take(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> None:
        value = message.payload[0][0]
        if value == "fail":
            raise ValueError("of the strategy")
        if value != "forget":
            usual(message, body, ack, reject, callbacks)

    return take


def double(value: Any) -> Any:
    if value == "fail":
        raise ValueError("of the function")
    return value * 2, threading.current_thread().name


@pytest.fixture
def app() -> Iterator[Any]:
    app: Any = Celery(
        "proj", broker=f"memory://{uuid.uuid4().hex}", backend="cache+memory://", set_as_current=False
    )

    def same(value: Any) -> Any:
        return value

    app.task(name="plain", Strategy=staticmethod(put_all))(same)
    app.task(name="odd", Strategy=staticmethod(odd_ones))(same)

    yield app
    app.close()
    while not TAKEN.empty():
        TAKEN.get()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def taken() -> Any:
    return TAKEN.get(timeout=TIMEOUT)


def test_a_message_is_its_strategys_until_it_is_settled(app: Any) -> None:
    # Given a message that a strategy has taken, while the worker goes on
    call = app.tasks["plain"].delay("first")
    with start_worker(app, pool="threads", concurrency=1) as worker:
        assert worker.node is not None
        ledger = worker.node.ledger
        message, ack, *_ = taken()
        assert message.payload[0] == ["first"]
        app.tasks["plain"].delay("second")
        second, *_ = taken()
        assert len(ledger) == 2

        # When it is acknowledged, twice, and the other one refused
        ack(logging.getLogger(), ())
        message.ack()
        second.reject()
        app.tasks["plain"].delay("third")
        third, *_ = taken()
        until(lambda: len(ledger) == 1)

        # Then only what is not settled is held, and that goes back at the end
        assert message.acknowledged
        assert second.acknowledged
        assert call.state == "PENDING"
        del third
    with start_worker(app, pool="threads", concurrency=1):
        again, *_ = taken()
        assert again.payload[0] == ["third"]
        again.ack()


def test_requests_of_a_strategy_settle_their_messages(app: Any) -> None:
    app.tasks["plain"].apply_async(("value",), expires=1000)
    with start_worker(app, pool="threads", concurrency=1):
        message, ack, reject, consumer = taken()
        made = create_request_cls(
            Request, app.tasks["plain"], consumer.pool, consumer.hostname, None, app=app
        )
        request = made(
            message,
            on_ack=ack,
            on_reject=reject,
            app=app,
            hostname=consumer.hostname,
            task=app.tasks["plain"],
            body=message.body,
            headers=message.headers,
            connection_errors=consumer.connection_errors,
        )
        assert request.args == ["value"]
        assert request.eta is None
        assert request.expires is not None

        request.reject(requeue=True)

        second, *_ = taken()
        assert second.payload[0] == ["value"]
        assert second.delivery_info["redelivered"]
        second.ack()


def test_functions_of_a_strategy_are_called_by_the_pool(app: Any) -> None:
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    app.tasks["plain"].delay(1)
    with start_worker(app, pool="threads", concurrency=1):
        message, *_, consumer = taken()
        message.ack()
        call = consumer.pool.apply_async

        call(double, (2,), accept_callback=lambda *found: told.put(found), callback=told.put)
        pid, at = told.get(timeout=TIMEOUT)
        assert (pid, at > 0) == (os.getpid(), True)
        value, thread = told.get(timeout=TIMEOUT)
        assert value == 4
        assert thread != threading.current_thread().name

        call(double, kwargs={"value": "fail"}, error_callback=told.put, callback=told.put)
        failed = told.get(timeout=TIMEOUT)
        assert "of the function" in str(failed.exception)
        assert "Traceback" in failed.traceback

        with pytest.raises(AttributeError, match="pickle"):
            call(lambda: None)


def test_timers_of_a_strategy_are_called_in_its_thread(app: Any) -> None:
    told: queue.SimpleQueue[str] = queue.SimpleQueue()

    def timed(task: Any, app: Any, consumer: Any) -> Callable[..., None]:
        def take(message: Any, *args: Any) -> None:
            told.put(threading.current_thread().name)
            message.ack()
            consumer.timer.call_after(0.01, lambda: told.put(threading.current_thread().name))

        return take

    app.tasks["plain"].Strategy = timed
    app.tasks["plain"].delay(1)
    with start_worker(app, pool="solo"):
        names = [told.get(timeout=TIMEOUT) for _ in range(2)]

    assert names == ["celeriac-strategies"] * 2


def test_a_strategy_may_leave_messages_to_the_worker(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    # When a strategy fails for a message, forgets another one, and leaves a third to the worker
    for value in ("fail", "forget"):
        app.tasks["odd"].delay(value)
    call = app.tasks["odd"].delay("usual")
    with start_worker(app, pool="threads", concurrency=1) as worker:
        assert call.get(timeout=TIMEOUT) == "usual"
        assert worker.node is not None
        node = worker.node
        until(lambda: not len(node.ledger))

        # Then the first two are where a person can find them
        until(lambda: node.reporter.dead_letters == {"other": 2})
    assert "of the strategy" in caplog.text
    assert "let go of" in caplog.text


def test_a_strategy_that_cannot_be_made_ends_the_worker(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(task: Any, app: Any, consumer: Any) -> None:
        raise LookupError("no strategy")

    app.tasks["plain"].Strategy = broken
    worker = Worker(app, NodeOptions(hostname="one@here", pool="threads", concurrency=1))
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(worker.run).result(TIMEOUT) == 1
    assert "no strategy" in caplog.text


def test_messages_of_the_old_protocol_are_turned_into_those_of_the_new() -> None:
    message = SimpleNamespace(headers={"id": "1", "task": "t", "retries": 2})
    old = {
        "id": "1",
        "task": "t",
        "args": [1],
        "kwargs": {"a": 2},
        "taskset": "g",
        "utc": False,
        "retries": 0,
    }

    (args, kwargs, embed), headers, decoded, utc = proto1_to_proto2(message, old)
    assert (args, kwargs, decoded, utc) == ([1], {"a": 2}, True, False)
    assert embed == {"callbacks": None, "errbacks": None, "chord": None, "chain": None}
    assert headers == {"id": "1", "task": "t", "group": "g", "retries": 0}

    (args, _, _), headers, _, _ = hybrid_to_proto2(message, old)
    assert (args, headers["retries"], headers["eta"]) == ([1], 2, None)


def test_a_task_has_the_usual_strategy_and_class_of_requests() -> None:
    assert (Task.Strategy, Task.Request) == (
        "celery.worker.strategy:default",
        "celery.worker.request:Request",
    )
