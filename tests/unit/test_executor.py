"""What the executor makes of a job."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import msgspec
import pytest

from celeriac.app import Celeriac
from celeriac.errors import (
    Ignore,
    Reject,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    WorkerLostError,
)
from celeriac.execute.executor import Executor
from celeriac.message import Finished, Job, Lost, Outcome
from celeriac.pools.limits import ThreadLimit
from job_factory import deliveries, job_of, memory_app


def sent(app: Celeriac, **fields: Any) -> Job:
    """Return the job of the one message that was sent."""
    (delivery,) = deliveries(app)
    return job_of(delivery, **fields)


def run(app: Celeriac, job: Job) -> Finished:
    return Executor(app, "w1@host").run(job, None)


def outcome(app: Celeriac, finished: Finished) -> Outcome:
    """Store what was to be stored and read it as a client does."""
    assert finished.record is not None
    assert app.backend is not None
    app.backend.store([finished.record])
    return app.backend.fetch([finished.record.id])[finished.record.id]


def test_a_success_is_reported_with_its_result_encoded() -> None:
    app = memory_app()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    result = add.delay(2, 3)
    finished = run(app, sent(app, number=7))

    assert (finished.number, finished.kind) == (7, "success")
    assert finished.runtime > 0
    stored = outcome(app, finished)
    assert (stored.id, stored.state, stored.result) == (result.id, "SUCCESS", 5)
    assert stored.date_done is not None


def test_the_request_knows_the_message() -> None:
    app = memory_app()
    seen: list[Any] = []

    @app.task(bind=True)
    def look(self: Any, x: int) -> None:
        seen.append(self.request)

    result = look.apply_async((1,), headers={"mine": "yes"}, priority=3)
    run(app, sent(app))

    (request,) = seen
    assert (request.id, request.args, request.kwargs, request.retries) == (result.id, [1], {}, 0)
    assert (request.mine, request.headers) == ("yes", {"mine": "yes"})
    assert (request.called_directly, request.hostname) == (False, "w1@host")
    assert request.delivery_info["routing_key"] == "celery"
    assert request.delivery_info["priority"] == 3
    assert request.correlation_id == result.id
    assert request.attempt == 1


def test_a_failure_is_reported_with_its_exception(caplog: pytest.LogCaptureFixture) -> None:
    app = memory_app()

    @app.task
    def fail() -> None:
        raise KeyError("x")

    result = fail.delay()
    finished = run(app, sent(app))

    assert finished.kind == "failure"
    stored = outcome(app, finished)
    assert stored.state == "FAILURE"
    assert isinstance(stored.result, KeyError)
    assert "KeyError: 'x'" in (stored.traceback or "")
    (record,) = caplog.records
    assert record.name == "celery.app.trace"
    assert record.getMessage() == f"Task {fail.name}[{result.id}] raised unexpected: KeyError('x')"
    assert record.exc_info is not None


@pytest.mark.parametrize(
    ("raised", "kind", "level", "text"),
    [
        (Ignore(), "ignore", "INFO", "ignored"),
        (Reject("because"), "reject", "WARNING", "reject requeue=False: because"),
        (Reject("because", requeue=True), "requeue", "WARNING", "reject requeue=True: because"),
    ],
)
def test_what_a_task_asks_for_is_reported_and_nothing_is_stored(
    raised: Exception, kind: str, level: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = memory_app()

    @app.task
    def ask() -> None:
        raise raised

    result = ask.delay()
    finished = run(app, sent(app))

    assert (finished.kind, finished.record) == (kind, None)
    (record,) = [r for r in caplog.records if r.name == "celery.app.trace"]
    assert (record.levelname, record.getMessage()) == (level, f"Task {ask.name}[{result.id}] {text}")


def test_a_retry_sends_the_task_again_and_stores_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = memory_app()

    @app.task(bind=True)
    def again(self: Any) -> None:
        raise self.retry(exc=RuntimeError("boom"), countdown=0)

    result = again.delay()
    finished = run(app, sent(app))
    next_run = sent(app)

    assert finished.kind == "retry"
    assert (next_run.id, next_run.headers["retries"]) == (result.id, 1)
    stored = outcome(app, finished)
    assert (stored.state, repr(stored.result)) == ("RETRY", "RuntimeError('boom')")
    messages = [r.getMessage() for r in caplog.records if r.name == "celery.app.trace"]
    assert messages == [f"Task {again.name}[{result.id}] retry: Retry in 0s: RuntimeError('boom')"]


def test_a_success_is_told_in_celerys_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = memory_app()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    result = add.delay(1, 2)
    finished = run(app, sent(app))

    (record,) = [r for r in caplog.records if r.name == "celery.app.trace"]
    assert record.getMessage() == f"Task {add.name}[{result.id}] succeeded in {finished.runtime}s: 3"


def test_an_expected_failure_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = memory_app()

    @app.task(throws=(ValueError,))
    def expected() -> None:
        raise ValueError("exp")

    result = expected.delay()
    run(app, sent(app))

    (record,) = [r for r in caplog.records if r.name == "celery.app.trace"]
    assert record.levelname == "INFO"
    assert record.getMessage() == f"Task {expected.name}[{result.id}] raised expected: ValueError('exp')"
    assert record.exc_info is None


def test_a_result_without_a_form_in_the_serializer_is_a_failure() -> None:
    app = memory_app()

    @app.task
    def strange() -> Any:
        return object()

    strange.delay()
    finished = run(app, sent(app))

    assert finished.kind == "failure"
    assert type(outcome(app, finished).result).__name__ == "EncodeError"


def test_nothing_is_stored_for_an_ignored_result() -> None:
    app = memory_app()

    @app.task(ignore_result=True)
    def quiet() -> int:
        return 1

    quiet.delay()
    finished = run(app, sent(app))

    assert (finished.kind, finished.record) == ("success", None)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"body": b"[1, 2"}, ""),
        ({"body": b"[[], {}]"}, "2 elements"),
        ({"content_type": "application/x-unheard-of"}, "application/x-unheard-of"),
        ({"content_type": "application/x-python-serialize"}, "pickle"),
        ({"body": b"[1, {}, null]"}, "list"),
    ],
)
def test_a_message_that_is_no_call_is_reported_as_invalid(
    change: dict[str, Any], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = memory_app()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    result = add.delay(1, 2)
    finished = run(app, msgspec.structs.replace(sent(app), **change))

    assert finished.kind == "invalid"
    assert text in (finished.exception_repr or "")
    assert outcome(app, finished).state == "FAILURE"
    (record,) = caplog.records
    assert result.id in record.getMessage()


def test_exits_are_not_held_back() -> None:
    app = memory_app()

    @app.task
    def leave() -> None:
        raise SystemExit(3)

    leave.delay()
    with pytest.raises(SystemExit):
        run(app, sent(app))


def test_a_start_can_be_seen_while_the_task_runs() -> None:
    app = memory_app()
    seen: list[Any] = []

    @app.task(bind=True, track_started=True)
    def slow(self: Any) -> None:
        assert app.backend is not None
        seen.append(app.backend.fetch([self.request.id])[self.request.id])

    slow.delay()
    run(app, sent(app))

    assert seen[0].state == "STARTED"
    assert seen[0].result["hostname"] == "w1@host"
    assert isinstance(seen[0].result["pid"], int)


def test_a_coroutine_runs_to_its_end_and_knows_its_task() -> None:
    app = memory_app()
    loops: list[object] = []

    @app.task(bind=True)
    async def wait(self: Any, value: int) -> tuple[int, str]:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return value, self.request.id

    executor = Executor(app, "w1@host")
    results = [wait.delay(1), wait.delay(2)]
    reports = [executor.run(job_of(delivery), None) for delivery in deliveries(app)]
    executor.close()

    assert [outcome(app, report).result for report in reports] == [[1, results[0].id], [2, results[1].id]]
    assert loops[0] is loops[1]


def test_the_soft_limit_is_raised_where_a_coroutine_waits() -> None:
    app = memory_app()
    cleaned: list[str] = []

    @app.task
    async def slow() -> str:
        try:
            await asyncio.sleep(30)
        except SoftTimeLimitExceeded:
            cleaned.append("up")
            await asyncio.sleep(0)
            raise
        return "never"

    slow.delay()
    executor = Executor(app, "w1@host")
    before = time.monotonic()
    finished = executor.run(sent(app, soft_limit_seconds=0.1), ThreadLimit())
    executor.close()

    assert time.monotonic() - before < 5
    assert cleaned == ["up"]
    assert isinstance(outcome(app, finished).result, SoftTimeLimitExceeded)


def test_a_coroutine_may_overcome_its_soft_limit() -> None:
    app = memory_app()

    @app.task
    async def slow() -> str:
        try:
            await asyncio.sleep(30)
        except SoftTimeLimitExceeded:
            await asyncio.sleep(0.01)
        return "rescued"

    slow.delay()
    executor = Executor(app, "w1@host")
    finished = executor.run(sent(app, soft_limit_seconds=0.05), ThreadLimit())
    executor.close()

    assert outcome(app, finished).result == "rescued"


def test_what_follows_a_success_is_sent() -> None:
    app = memory_app()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    add.apply_async((1, 2), link=add.s(10))
    run(app, sent(app))
    followed = run(app, sent(app))

    assert outcome(app, followed).result == 13


@pytest.mark.parametrize(
    ("limit", "kind", "args"),
    [
        (None, WorkerLostError, ("Worker exited prematurely: signal 9 (SIGKILL) Job: 1.",)),
        (2.0, TimeLimitExceeded, (2,)),
    ],
)
def test_a_job_that_an_earlier_child_died_of_fails_without_being_run(
    limit: float | None, kind: type[Exception], args: tuple[Any, ...]
) -> None:
    app = memory_app()
    failures: list[Any] = []
    ran: list[int] = []
    told_by_signal: list[dict[str, Any]] = []

    @app.hooks.task_failure.connect
    def on_failure(**facts: Any) -> None:
        told_by_signal.append(facts)

    @app.task
    def deadly() -> None:
        ran.append(1)

    @app.task
    def told(request: Any, exc: Exception, text: str) -> None:
        failures.append((request.id, exc))

    result = deadly.apply_async(link_error=told.s())
    lost = Lost(
        number=1,
        started=True,
        reason="Worker exited prematurely: signal 9 (SIGKILL) Job: 1.",
        limit_seconds=limit,
    )
    finished = run(app, sent(app, lost=lost))

    assert (finished.kind, ran) == ("failure", [])
    assert app.backend is not None
    stored = app.backend.fetch([result.id])[result.id]
    assert type(stored.result) is kind
    assert stored.result.args == args
    assert [(id, type(exc)) for id, exc in failures] == [(result.id, kind)]
    [facts] = told_by_signal
    assert (facts["sender"], facts["task_id"], facts["traceback"]) == (deadly, result.id, "")
    assert facts["einfo"].exception is facts["exception"]
    assert kind.__name__ in facts["einfo"].traceback


def test_a_failing_hook_of_the_task_leaves_its_outcome(caplog: pytest.LogCaptureFixture) -> None:
    app = memory_app()

    class Clumsy(app.Task):  # type: ignore[name-defined,misc]
        def on_success(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("hook")

    @app.task(base=Clumsy)
    def fine() -> int:
        return 1

    fine.delay()
    finished = run(app, sent(app))

    assert finished.kind == "success"
    assert outcome(app, finished).result == 1
    assert "RuntimeError('hook')" in caplog.text
    assert "CRITICAL" in {record.levelname for record in caplog.records}


def test_a_message_for_a_task_nobody_has_is_invalid() -> None:
    app = memory_app()

    app.send_task("nope.nope")
    finished = run(app, sent(app))

    assert finished.kind == "invalid"
    assert "nope.nope" in (finished.exception_repr or "")


def test_wrong_arguments_are_a_failure_of_the_task() -> None:
    app = memory_app()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    app.send_task(add.name, (1,))
    finished = run(app, sent(app))

    assert finished.kind == "failure"
    assert isinstance(outcome(app, finished).result, TypeError)


def test_reports_carry_texts_only_for_those_who_watch() -> None:
    app = memory_app()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    add.delay(1, 2)
    job = sent(app)

    assert Executor(app, "w").run(job, None).result_repr is None
    job.tells = True
    assert Executor(app, "w").run(job, None).result_repr == "3"


def test_process_hooks_are_told() -> None:
    app = memory_app()
    told: list[str] = []

    @app.hooks.worker_process_init.connect
    def on_init(**kwargs: Any) -> None:
        told.append("init")

    @app.hooks.worker_process_shutdown.connect
    def on_shutdown(exitcode: int, **kwargs: Any) -> None:
        told.append(f"shutdown {exitcode}")

    executor = Executor(app, "w")
    executor.begin()
    executor.end(3)

    assert told == ["init", "shutdown 3"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_line_about_an_end_says_of_which_task_it_is(
    fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "celery.app.trace")
    app = memory_app()

    @app.task(name="t.divide")
    def divide(by: int) -> float:
        return 1 / by

    result = divide.delay(0 if fails else 1)
    run(app, sent(app))

    [record] = [record for record in caplog.records if record.name == "celery.app.trace"]
    assert ("raised unexpected" if fails else "succeeded in") in record.getMessage()
    assert (record.data["name"], record.data["id"]) == ("t.divide", result.id)  # type: ignore[attr-defined]  # by extra=
