"""A whole worker on the memory broker, with each kind of pool."""

from __future__ import annotations

import asyncio
import datetime
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.canvas import chain, chord, group
from celeriac.context import Context
from celeriac.copies import COPY_HEADER, is_to_run
from celeriac.errors import (
    BackendUnreachable,
    NotRegistered,
    Reject,
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
    TransportError,
    WorkerLostError,
)
from celeriac.message import Delivery, Record, Verdict
from celeriac.node.link import RetryPolicy
from celeriac.ports import ConsumeSpec
from celeriac.queues import Queue
from celeriac.result import AsyncResult
from celeriac.task import Task
from celeriac.testing.worker import start_worker
from celeriac.wire.task import RESENT_HEADER
from job_factory import memory_app
from worker_program import until

POOLS = ["threads", "solo", "prefork"]
IN_PROCESS = ["threads", "solo"]
TIMEOUT = 60.0


def dead(app: Celeriac) -> list[str]:
    """Return the reasons of the dead letters."""
    return [letter.reason for letter in app.transport.graveyard().find("celery")]


def eta_in(seconds: float) -> str:
    """Return a time as task messages have it."""
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)).isoformat()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celeriac]:
    # Results in files: children of a pool of processes read and write them too.
    app = memory_app(backend=f"file://{tmp_path}")
    yield app
    app.close()


@pytest.mark.parametrize("pool", POOLS)
def test_tasks_run_once_each_and_results_come_back(app: Celeriac, pool: str, tmp_path: Path) -> None:
    @app.task
    def note(number: int) -> int:
        with (tmp_path / f"ran-{number}").open("a") as file:
            file.write("x")
        return number * 2

    with start_worker(app, pool=pool, concurrency=2):
        results = [note.delay(number) for number in range(60)]
        values = [result.get(timeout=TIMEOUT) for result in results]

    assert values == [number * 2 for number in range(60)]
    assert [(tmp_path / f"ran-{number}").read_text() for number in range(60)] == ["x"] * 60
    assert app.transport.size("celery") == 0
    assert dead(app) == []


@pytest.mark.parametrize("pool", POOLS)
def test_a_failure_reaches_the_caller(app: Celeriac, pool: str) -> None:
    @app.task
    def fail() -> None:
        raise KeyError("x")

    with start_worker(app, pool=pool):
        result = fail.delay()
        with pytest.raises(KeyError):
            result.get(timeout=TIMEOUT)

    assert result.state == "FAILURE"


@pytest.mark.parametrize("pool", IN_PROCESS)
def test_retries_come_back_to_the_worker(app: Celeriac, pool: str) -> None:
    runs: list[int] = []

    @app.task(bind=True, max_retries=5)
    def again(self: Task) -> int:
        runs.append(self.request.retries)
        if self.request.retries < 2:
            raise self.retry(countdown=0.05)
        return self.request.retries

    with start_worker(app, pool=pool):
        assert again.delay().get(timeout=TIMEOUT) == 2

    assert runs == [0, 1, 2]


@pytest.mark.parametrize("pool", IN_PROCESS)
def test_chains_groups_and_chords_run(app: Celeriac, pool: str) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task
    def total(numbers: Sequence[int]) -> int:
        return sum(numbers)

    with start_worker(app, pool=pool):
        assert chain(add.s(1, 2), add.s(3), add.s(4)).delay().get(timeout=TIMEOUT) == 10
        assert group(add.s(i, i) for i in range(5)).delay().get(timeout=TIMEOUT) == [0, 2, 4, 6, 8]
        assert chord([add.s(i, 1) for i in range(5)], total.s()).delay().get(timeout=TIMEOUT) == 15


@pytest.mark.parametrize("pool", POOLS)
def test_async_tasks_run(app: Celeriac, pool: str) -> None:
    @app.task
    async def wait(x: int) -> int:
        await asyncio.sleep(0.001)
        return x + 1

    with start_worker(app, pool=pool):
        assert wait.delay(1).get(timeout=TIMEOUT) == 2


@pytest.mark.parametrize("kept_by", ["broker", "timer", "parked"])
def test_a_task_runs_when_it_is_due(app: Celeriac, kept_by: str) -> None:
    countdown = 2.5 if kept_by == "parked" else 0.4
    ran: list[float] = []

    @app.task
    def note() -> None:
        ran.append(time.time())

    with start_worker(app, pool="threads"):
        sent = time.time()
        if kept_by == "broker":
            result = note.apply_async(countdown=countdown)
        else:
            result = note.apply_async(headers={"eta": eta_in(countdown)})
        result.get(timeout=TIMEOUT)

    assert countdown - 0.01 <= ran[0] - sent < countdown + 1


def test_an_expired_task_is_revoked(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    told: list[Any] = []

    @app.task
    def late() -> None: ...

    @app.hooks.task_revoked.connect(sender=late)
    def on_revoked(**kwargs: Any) -> None:
        request = kwargs["request"]
        assert type(request) is Context
        told.append((request.id, request.task, kwargs["expired"]))

    result = late.apply_async(expires=0.01)
    time.sleep(0.05)
    with start_worker(app, pool="threads"), pytest.raises(TaskRevokedError, match="expired"):
        result.get(timeout=TIMEOUT)

    assert result.state == "REVOKED"
    assert told == [(result.id, late.name, True)]
    assert f"Discarding revoked task: {late.name}[{result.id}]" in caplog.text


def test_an_unknown_task_is_kept_and_its_caller_told(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    @app.task
    def known() -> int:
        return 1

    with start_worker(app, pool="threads"):
        result = app.send_task("nope.nope", (1,))
        with pytest.raises(NotRegistered):
            result.get(timeout=TIMEOUT)
        assert known.delay().get(timeout=TIMEOUT) == 1

    (record,) = [r for r in caplog.records if "unregistered" in r.getMessage()]
    assert record.getMessage().startswith("Received unregistered task of type 'nope.nope'.")
    assert result.id in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)
    (reason,) = dead(app)
    assert "nope.nope" in reason


@pytest.mark.parametrize("raw", [b"no envelope at all", b'{"body": "e30=", "headers": {}, "properties": {}}'])
def test_what_is_no_task_message_is_kept_and_the_worker_goes_on(
    app: Celeriac, caplog: pytest.LogCaptureFixture, raw: bytes
) -> None:
    @app.task
    def known() -> int:
        return 1

    with start_worker(app, pool="threads"):
        app.transport.broker.put_raw("celery", raw)  # type: ignore[attr-defined]
        assert known.delay().get(timeout=TIMEOUT) == 1

    assert len(dead(app)) == 1
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1


@pytest.mark.parametrize(
    ("eta", "why"), [("not a time", "ISO 8601"), (17, "invalid headers")], ids=["text", "number"]
)
def test_a_message_with_wrong_headers_is_kept(app: Celeriac, eta: Any, why: str) -> None:
    @app.task
    def known() -> int:
        return 1

    with start_worker(app, pool="threads"):
        known.apply_async(headers={"eta": eta})
        assert known.delay().get(timeout=TIMEOUT) == 1

    (reason,) = dead(app)
    assert why in reason


def test_a_body_that_is_no_call_is_kept_and_its_caller_told(app: Celeriac) -> None:
    app.conf.accept_content = ["json"]

    @app.task
    def known() -> int:
        return 1

    with start_worker(app, pool="threads"):
        result = known.apply_async(serializer="pickle")
        with pytest.raises(Exception, match="pickle"):
            result.get(timeout=TIMEOUT)
        assert known.delay().get(timeout=TIMEOUT) == 1

    assert len(dead(app)) == 1


def test_a_body_beyond_the_limit_is_kept(app: Celeriac) -> None:
    app.conf.worker_max_message_bytes = 1000

    @app.task
    def known(text: str = "") -> int:
        return len(text)

    with start_worker(app, pool="threads"):
        result = known.delay("x" * 2000)
        with pytest.raises(Exception, match="1000 are allowed"):
            result.get(timeout=TIMEOUT)
        assert known.delay().get(timeout=TIMEOUT) == 0

    assert len(dead(app)) == 1


def test_received_tasks_are_told_to_hooks_and_log(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    told: list[Any] = []

    @app.hooks.task_received.connect
    def on_received(request: Any, **kwargs: Any) -> None:
        told.append((request.id, request.name, str(request), threading.current_thread().name))

    @app.task
    def known() -> int:
        return 1

    with start_worker(app, pool="threads"):
        result = known.delay()
        result.get(timeout=TIMEOUT)

    (seen,) = told
    assert seen[:3] == (result.id, known.name, f"{known.name}[{result.id}]")
    (record,) = [r for r in caplog.records if r.name == "celery.worker.strategy"]
    assert record.getMessage() == f"Task {known.name}[{result.id}] received"


def test_life_is_told_to_hooks_in_order(app: Celeriac) -> None:
    told: list[str] = []
    receivers = []
    for name in (
        "celeryd_init",
        "celeryd_after_setup",
        "worker_init",
        "worker_ready",
        "worker_shutdown",
    ):

        def receive(told_as: str = name, **kwargs: Any) -> None:
            told.append(told_as)

        receivers.append(receive)
        app.hooks.get(name).connect(receive)

    with start_worker(app, pool="threads"):
        pass

    assert told == ["celeryd_init", "celeryd_after_setup", "worker_init", "worker_ready", "worker_shutdown"]


# --- acknowledging ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", IN_PROCESS)
def test_a_task_may_refuse_its_message_and_get_it_again(app: Celeriac, pool: str) -> None:
    seen: list[bool] = []

    @app.task(bind=True, acks_late=True)
    def picky(self: Any) -> int:
        seen.append(self.request.delivery_info["redelivered"])
        if len(seen) < 6:  # more often than a task may be delivered that kills its worker
            raise Reject("not now", requeue=True)
        return 1

    with start_worker(app, pool=pool):
        assert picky.delay().get(timeout=TIMEOUT) == 1

    assert seen == [False] + [True] * 5
    assert dead(app) == []


def test_no_acknowledgement_before_the_outcome_is_stored(app: Celeriac) -> None:
    backend = app.backend
    assert backend is not None
    store = backend.astore
    refused: list[int] = []

    async def failing(batch: Sequence[Record]) -> None:
        if len(refused) < 3:
            refused.append(app.transport.size("celery"))
            raise BackendUnreachable("nobody at memory://")
        await store(batch)

    backend.astore = failing  # type: ignore[method-assign]

    @app.task
    def known() -> int:
        return 1

    with start_worker(app, pool="threads") as worker:
        result = known.delay()
        until(lambda: len(refused) >= 2)
        assert worker.node is not None
        assert worker.node.reporter.backlog == 1
        assert result.get(timeout=TIMEOUT) == 1

    assert dead(app) == []


def test_a_warm_stop_waits_for_what_runs_and_hands_back_the_rest(app: Celeriac) -> None:
    begun, go = threading.Event(), threading.Event()

    @app.task
    def slow(number: int) -> int:
        begun.set()
        go.wait(TIMEOUT)
        return number

    with start_worker(app, pool="threads", concurrency=1, prefetch_multiplier=4) as worker:
        results = [slow.delay(number) for number in range(4)]
        assert begun.wait(TIMEOUT)
        until(lambda: app.transport.size("celery") == 0)  # the others are fetched ahead
        worker.stop("warm")
        until(lambda: app.transport.size("celery") == 3)
        assert not results[0].ready()
        go.set()

    assert results[0].get(timeout=TIMEOUT) == 0
    assert [result.state for result in results] == ["SUCCESS", "PENDING", "PENDING", "PENDING"]
    with start_worker(app, pool="threads"):
        assert [result.get(timeout=TIMEOUT) for result in results] == [0, 1, 2, 3]


def test_early_tasks_are_handed_back_too(app: Celeriac) -> None:
    @app.task
    def later() -> int:
        return 1

    with start_worker(app, pool="threads") as worker:
        # Set behind the client's back, so that the broker does not keep it.
        later.apply_async(headers={"eta": eta_in(1.5)})
        until(lambda: worker.node is not None and len(worker.node.intake.timers) == 1)

    assert app.transport.size("celery") == 1


@pytest.mark.parametrize("late", [True, False], ids=["late", "early"])
def test_a_cold_stop_gives_back_late_tasks_and_keeps_early_ones(app: Celeriac, late: bool) -> None:
    @app.task(acks_late=late, reject_on_worker_lost=True)
    def slow() -> None:
        time.sleep(30)

    with start_worker(app, pool="prefork", concurrency=1) as worker:
        result = slow.delay()
        until(lambda: bool(worker.pool.running()))
        worker.stop("cold")

    if late:
        assert app.transport.size("celery") == 1
        assert result.state == "PENDING"
    else:
        assert app.transport.size("celery") == 0
        assert isinstance(result.result, WorkerLostError)
        assert len(dead(app)) == 1


# --- lost workers and limits -------------------------------------------------------------------------------


def test_a_task_that_kills_its_child_fails_and_the_others_run(
    app: Celeriac, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task
    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    with start_worker(app, pool="prefork", concurrency=2):
        doomed = kill.delay()
        others = [add.delay(i, 1) for i in range(30)]
        with pytest.raises(WorkerLostError, match=r"signal 9 \(SIGKILL\) Job: \d+"):
            doomed.get(timeout=TIMEOUT)
        assert [other.get(timeout=TIMEOUT) for other in others] == [i + 1 for i in range(30)]

    assert len(dead(app)) == 1
    assert "Worker exited prematurely: signal 9 (SIGKILL)" in caplog.text
    assert "exited with 'signal 9 (SIGKILL)'" in caplog.text


def test_what_follows_a_lost_task_is_told_as_well(app: Celeriac, tmp_path: Path) -> None:
    @app.task
    def kill() -> None:
        os._exit(1)

    @app.task
    def told(request: Any, exc: BaseException, text: str) -> None:
        (tmp_path / "told").write_text(f"{request.id} {exc!r}")

    with start_worker(app, pool="prefork"):
        result = kill.apply_async(link_error=told.s())
        with pytest.raises(WorkerLostError, match="exitcode 1"):
            result.get(timeout=TIMEOUT)
        until((tmp_path / "told").exists)
        until(lambda: "WorkerLostError" in (tmp_path / "told").read_text())

    assert (tmp_path / "told").read_text().startswith(result.id)


def test_a_late_task_that_keeps_killing_its_child_ends_as_a_dead_letter(
    app: Celeriac, tmp_path: Path
) -> None:
    @app.task(acks_late=True, reject_on_worker_lost=True)
    def kill() -> None:
        with (tmp_path / "runs").open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    with start_worker(app, pool="prefork"), pytest.raises(WorkerLostError):
        kill.delay().get(timeout=TIMEOUT)

    assert (tmp_path / "runs").read_text() == "xxx"
    (reason,) = dead(app)
    assert "3 times" in reason


def test_limits_end_a_task(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    @app.task
    def slow() -> str:
        try:
            time.sleep(30)
        except SoftTimeLimitExceeded:
            return "cleaned up"
        return "never"

    @app.task
    def stubborn() -> None:
        while True:
            try:
                time.sleep(30)
            except SoftTimeLimitExceeded:
                continue

    with start_worker(app, pool="prefork", concurrency=1):
        assert slow.apply_async(soft_time_limit=0.3).get(timeout=TIMEOUT) == "cleaned up"
        result = stubborn.apply_async(soft_time_limit=0.2, time_limit=1)
        with pytest.raises(TimeLimitExceeded) as raised:
            result.get(timeout=TIMEOUT)

    assert raised.value.args == (1,)
    assert f"Soft time limit (0.3s) exceeded for {slow.name}[" in caplog.text
    assert f"Hard time limit (1s) exceeded for {stubborn.name}[{result.id}]" in caplog.text


def test_limits_come_from_the_task_and_from_the_node_too(app: Celeriac) -> None:
    @app.task(soft_time_limit=0.2)
    def own() -> None:
        time.sleep(30)

    @app.task
    def of_node() -> None:
        time.sleep(30)

    @app.task
    def stubborn() -> None:
        with suppress(SoftTimeLimitExceeded):
            time.sleep(30)
        time.sleep(30)

    with start_worker(app, pool="prefork", concurrency=3, soft_time_limit=0.3, time_limit=0.8):
        hard, results = stubborn.delay(), [own.delay(), of_node.delay()]
        for result in results:
            with pytest.raises(SoftTimeLimitExceeded):
                result.get(timeout=TIMEOUT)
        with pytest.raises(TimeLimitExceeded):
            hard.get(timeout=TIMEOUT)


# --- the broker goes and comes ---------------------------------------------------------------------------


class Flaky:
    """A consumer whose connection is lost now and then."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    async def receive(self, limit: int) -> Sequence[Delivery]:
        self._fail()
        waiting = asyncio.ensure_future(self._consumer.receive(limit))
        while not waiting.done():
            await asyncio.wait([waiting], timeout=0.01)
            if self.failures and not waiting.done():
                waiting.cancel()
                self._fail()
        return await waiting  # type: ignore[no-any-return]

    async def renew(self) -> None:
        self._fail()
        await self._consumer.renew()

    async def settle(self, verdicts: Sequence[tuple[Delivery, Verdict]]) -> None:
        self._fail()
        await self._consumer.settle(verdicts)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise TransportError("the connection was lost")


def test_the_worker_resumes_when_the_broker_is_back(
    app: Celeriac, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    quick = functools.partial(RetryPolicy, intervals=(0.01, 0.0, 0.01))
    monkeypatch.setattr("celeriac.node.worker.RetryPolicy", quick)
    made: list[Flaky] = []
    connect = app.transport.consumer

    async def consumer(spec: Any) -> Flaky:
        if len(made) == 0:
            made.append(Flaky(None))
            raise TransportError("nobody at memory://")
        made.append(Flaky(await connect(spec)))
        return made[-1]

    app.transport.consumer = consumer  # type: ignore[method-assign]

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    with start_worker(app, pool="threads"):
        assert add.delay(1, 1).get(timeout=TIMEOUT) == 2
        made[-1].failures = 3
        until(lambda: made[-1].failures == 0)
        assert add.delay(2, 2).get(timeout=TIMEOUT) == 4

    text = caplog.text
    assert "consumer: Cannot connect to memory://" in text
    assert "Trying again in 0.01 seconds... (1/100)" in text
    assert "consumer: Connection to broker lost. Trying to re-establish the connection..." in text
    assert text.count("Connected to memory://") == 2


@pytest.mark.parametrize("late", [True, False], ids=["late", "early"])
@pytest.mark.parametrize("done", [True, False], ids=["done", "under-way"])
def test_a_message_that_comes_again_is_not_run_again(
    app: Celeriac, late: bool, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    begun, go = threading.Event(), threading.Event()

    @app.task(acks_late=late)
    def slow() -> str:
        runs.append(1)
        begun.set()
        go.wait(TIMEOUT)
        return "once"

    @app.task
    def echo(x: int) -> int:
        return x

    with start_worker(app, pool="threads", concurrency=2) as worker:
        assert worker.node is not None
        consumer: Any = worker.node.link.consumer
        settle, told = consumer.settle, threading.Event()

        async def forget(verdicts: Any) -> None:
            told.set()  # the broker heard it and has crashed before it was on disk

        result = slow.delay()
        assert begun.wait(TIMEOUT)
        if not late:
            until(lambda: any(lease.started for lease in list(consumer.leases)))
        if done:
            consumer.settle = forget
            go.set()
            assert told.wait(TIMEOUT)
            until(lambda: worker.node is not None and worker.node.reporter.backlog == 0)
            consumer.settle = settle
        consumer.expires = 0.0  # as if the node had been thought dead: the broker takes everything back
        assert echo.delay(1).get(timeout=TIMEOUT) == 1
        go.set()
        assert result.get(timeout=TIMEOUT) == "once"

    assert runs == [1]
    assert dead(app) == []
    assert app.transport.size("celery") == 0


def test_what_replaces_a_task_is_run_by_the_same_node_when_it_comes_again(app: Celeriac) -> None:
    other = Queue(name="other")

    @app.task(acks_late=True, reject_on_worker_lost=True)
    def inner() -> str:
        return "inner"

    @app.task(bind=True)
    def outer(self: Any) -> Any:
        return self.replace(inner.s().set(queue="other"))

    async def die_with_it() -> None:
        dying: Any = await app.transport.consumer(ConsumeSpec(queues=(other,), node="dying@here"))
        assert await dying.receive(1)
        dying.expires = 0.0

    with start_worker(app, pool="threads") as worker:
        assert worker.node is not None
        result = outer.delay()
        until(lambda: app.transport.size("other") == 1)  # under the id of the task that is done here
        asyncio.run(die_with_it())
        consumer: Any = worker.node.link.consumer
        asyncio.run_coroutine_threadsafe(consumer.add_queue(other), consumer._loop).result(TIMEOUT)

        assert result.get(timeout=TIMEOUT) == "inner"


def come_again(app: Celeriac, worker: Any, queue: Queue) -> None:
    """Have what waits in a queue redelivered to a worker, after another one has died with it."""

    async def die_with_it() -> None:
        dying: Any = await app.transport.consumer(ConsumeSpec(queues=(queue,), node="dying@here"))
        assert await dying.receive(1)
        dying.expires = 0.0

    asyncio.run(die_with_it())
    assert worker.node is not None
    consumer: Any = worker.node.link.consumer
    asyncio.run_coroutine_threadsafe(consumer.add_queue(queue), consumer._loop).result(TIMEOUT)


@pytest.mark.parametrize("under_way", [True, False], ids=["under-way", "dropped"])
def test_that_one_copy_of_a_body_was_dropped_here_does_not_keep_the_other_from_running_here(
    app: Celeriac, under_way: bool
) -> None:
    # Given a body of a chord that was sent twice, of which the worker that has claimed it has died
    runs: list[str] = []
    asked, go = threading.Event(), threading.Event()
    other, backend = Queue(name="other"), app.backend
    assert backend is not None

    @app.task(acks_late=True)
    def body(copy: str) -> str:
        runs.append(copy)
        return copy

    def send(copy: str, queue: str) -> AsyncResult[str]:
        return body.apply_async(
            (copy,), task_id="body", headers={COPY_HEADER: f"a-chord/{copy}"}, queue=queue
        )

    claim: Any = backend.claim

    def slow_claim(task_id: str, copy: str) -> bool:
        asked.set()
        assert not copy.endswith("second") or go.wait(TIMEOUT)
        return bool(claim(task_id, copy))

    result = send("first", "other")
    assert is_to_run(app, "body", "a-chord/first")
    backend.claim = slow_claim  # type: ignore[method-assign]

    # When the other copy is dropped, and the first comes again to the same worker
    with start_worker(app, pool="threads", concurrency=2) as worker:
        send("second", "celery")
        assert asked.wait(TIMEOUT)
        if not under_way:
            go.set()
            node = worker.node
            assert node is not None
            until(lambda: app.transport.size("celery") == 0 and not len(node.ledger))
        come_again(app, worker, other)

        # Then that is run
        until(lambda: runs == ["first"])
        go.set()
        assert result.get(timeout=TIMEOUT) == "first"
    assert runs == ["first"]
    assert app.transport.size("celery") == app.transport.size("other") == 0


def test_two_calls_under_one_id_both_run_although_one_comes_again(app: Celeriac) -> None:
    runs: list[str] = []
    begun, go = threading.Event(), threading.Event()

    @app.task(acks_late=True)
    def nightly(day: str) -> None:
        runs.append(day)
        begun.set()
        go.wait(TIMEOUT)

    # Given a worker that is at a call
    with start_worker(app, pool="threads", concurrency=2) as worker:
        nightly.apply_async(("monday",), task_id="nightly")
        assert begun.wait(TIMEOUT)

        # When another call under the same id comes again from a worker that has died
        nightly.apply_async(("tuesday",), task_id="nightly", queue="other")
        come_again(app, worker, Queue(name="other"))

        # Then it runs, too
        until(lambda: runs == ["monday", "tuesday"])
        go.set()
    assert app.transport.size("celery") == app.transport.size("other") == 0


def test_a_copy_that_was_sent_in_doubt_is_not_run_beside_the_first_one_though_it_comes_again(
    app: Celeriac,
) -> None:
    runs: list[str] = []
    begun, go = threading.Event(), threading.Event()

    @app.task(acks_late=True)
    def pay() -> None:
        runs.append("paid")
        begun.set()
        go.wait(TIMEOUT)

    # Given a worker that is at a call
    with start_worker(app, pool="threads", concurrency=2) as worker:
        assert worker.node is not None
        result = pay.apply_async(task_id="call")
        assert begun.wait(TIMEOUT)

        # When the copy that its sender has sent in doubt comes from a worker that has let go of it
        pay.apply_async(task_id="call", queue="other", headers={RESENT_HEADER: True})
        come_again(app, worker, Queue(name="other"))
        until(lambda: app.transport.size("other") == 0)
        until(lambda: worker.node is not None and worker.node.reporter.backlog == 0)
        go.set()
        result.get(timeout=TIMEOUT)

    # Then it does not run
    assert runs == ["paid"]
    assert app.transport.size("celery") == app.transport.size("other") == 0


def test_a_worker_gives_up_when_it_shall_not_retry(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    app.conf.broker_connection_retry_on_startup = False

    async def consumer(spec: Any) -> Any:
        raise TransportError("nobody at memory://")

    app.transport.consumer = consumer  # type: ignore[method-assign]

    with pytest.raises(RuntimeError, match="ended at once"), start_worker(app, pool="threads"):
        pass

    assert "broker_connection_retry_on_startup=False" in caplog.text
    assert "Unrecoverable" not in caplog.text  # it has been said why, once


def test_a_node_holds_no_more_than_its_prefetch(app: Celeriac) -> None:
    begun, go = threading.Event(), threading.Event()

    @app.task
    def slow() -> None:
        begun.set()
        go.wait(TIMEOUT)

    with start_worker(app, pool="threads", concurrency=1, prefetch_multiplier=2) as worker:
        results = [slow.delay() for _ in range(10)]
        assert begun.wait(TIMEOUT)
        until(lambda: app.transport.size("celery") == 8)
        assert worker.node is not None
        assert len(worker.node.ledger) == 2
        go.set()
        for result in results:
            result.get(timeout=TIMEOUT)


def test_a_node_that_held_a_task_until_its_time_is_granted_no_more_when_that_runs(app: Celeriac) -> None:
    granted: list[int] = []
    begun, go = threading.Event(), threading.Event()
    connect = app.transport.consumer

    async def consumer(spec: ConsumeSpec) -> Any:
        made = await connect(spec)
        tell = made.set_prefetch

        async def told(limit: int) -> None:
            granted.append(limit)
            await tell(limit)

        made.set_prefetch = told  # type: ignore[method-assign]
        return made

    app.transport.consumer = consumer  # type: ignore[method-assign]

    @app.task(acks_late=True)
    def slow() -> None:
        begun.set()
        go.wait(TIMEOUT)

    with start_worker(app, pool="threads", concurrency=1, prefetch_multiplier=1):
        result = slow.apply_async(headers={"eta": eta_in(0.5)})
        assert begun.wait(TIMEOUT)
        until(lambda: 2 in granted and granted[-1] == 1)
        go.set()
        result.get(timeout=TIMEOUT)
