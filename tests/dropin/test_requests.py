"""A task's own class of requests: its hooks see what becomes of calls, as in Celery."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from celeriac.message import Delivery, Envelope, Lost, Props, TaskHeaders
from celeriac.node.policy import Policies
from celeriac.node.work import Work
from celeriac.testing.worker import start_worker
from celery import Celery, Task
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request
from celery.worker.request_hooks import RequestHooks

TIMEOUT = 60.0
HEARD: list[tuple[Any, ...]] = []


class Mine(Request):
    """Tells what it hears."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        HEARD.append((self.task.name, "accepted", 0 <= time.monotonic() - time_accepted < TIMEOUT))
        super().on_accepted(pid, time_accepted)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        HEARD.append((self.task.name, "timeout", soft, timeout))
        super().on_timeout(soft, timeout)

    def on_retry(self, exc_info: Any) -> None:
        HEARD.append((self.task.name, "retry", exc_info.type))

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        HEARD.append((self.task.name, "failure", exc_info.type, return_ok))
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        if self.kwargs.get("breaks"):
            raise RuntimeError("of the hook")


class Watched(Task):
    """Has requests of its own."""

    abstract = True
    Request = Mine


@pytest.fixture
def app() -> Celery:
    HEARD.clear()
    return Celery("prog", broker="memory://requests", backend="cache+memory://")


def heard(name: str, count: int) -> list[tuple[Any, ...]]:
    """Return what the requests of a task hear, as soon as that is so much."""
    deadline = time.monotonic() + TIMEOUT
    while len(found := [line[1:] for line in HEARD if line[0] == name]) < count:
        assert time.monotonic() < deadline, HEARD
        time.sleep(0.01)
    return found


def declare(app: Celery, name: str, raises: Callable[[], BaseException] | None, **options: Any) -> Any:
    def run(**_: Any) -> int:
        if raises is not None:
            raise raises()
        return 1

    return app.task(name=name, base=Watched, **options)(run)


def test_hooks_see_what_celerys_see(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    # Given tasks that end in every way
    calls = [
        declare(app, "fine", None),
        declare(app, "fails", lambda: ValueError("no")),
        declare(app, "quiet", lambda: KeyError("no"), ignore_result=True),
        declare(app, "rejects", lambda: Reject("no", requeue=False), acks_late=True),
        declare(app, "ignored", Ignore),
        declare(app, "late", SoftTimeLimitExceeded, soft_time_limit=7),
    ]

    @app.task(name="again", base=Watched, bind=True, max_retries=1)
    def again(self: Any) -> None:
        raise self.retry(exc=LookupError("no"), countdown=0)

    @app.task(name="other")
    def other() -> None:
        raise ValueError("no")

    with start_worker(app, pool="threads", concurrency=1):
        # When they are called
        for task in calls:
            task.delay(breaks=True)
        again.delay()
        with pytest.raises(ValueError, match="no"):
            other.delay().get(timeout=TIMEOUT)

        # Then the hooks hear of it, whatever one of them does itself
        begun, gone = ("accepted", True), True
        assert heard("fails", 2) == [begun, ("failure", ValueError, gone)]
        assert heard("rejects", 2) == [begun, ("failure", Reject, gone)]
        assert heard("late", 3) == [begun, ("timeout", True, 7), ("failure", SoftTimeLimitExceeded, gone)]
        assert [line[1].__name__ for line in heard("quiet", 2)[1:]] == ["KeyError"]
        assert heard("again", 5) == [
            begun,
            ("failure", Retry, gone),
            ("retry", Retry),
            begun,
            ("failure", LookupError, gone),
        ]
    assert heard("fine", 1) == heard("ignored", 1) == [begun]
    assert heard("other", 0) == []
    assert "RuntimeError: of the hook" in caplog.text


@pytest.mark.parametrize(
    ("limit_seconds", "told"),
    [
        (None, [("failure", WorkerLostError, False)]),
        (2.0, [("failure", TimeLimitExceeded, False), ("timeout", False, 2)]),
    ],
)
def test_hooks_see_that_a_process_has_died(
    app: Celery, limit_seconds: float | None, told: list[tuple[Any, ...]]
) -> None:
    task = declare(app, "dies", None)
    app.finalize()
    envelope = Envelope(headers={"task": "dies", "id": "1"}, body=b"[[], {}, {}]", properties=Props())
    policy = Policies(app, None, None).get("dies")
    assert policy is not None
    delivery = Delivery(envelope=envelope, queue="celery", exchange="", routing_key="celery")
    work = Work(1, delivery, TaskHeaders(task="dies", id="1"), policy)
    hooks = RequestHooks(app, "one@host", {"dies": Mine})
    assert hooks.minds(task)
    hooks.begin()

    hooks.lost(work, Lost(number=1, started=True, reason="dead", limit_seconds=limit_seconds))
    hooks.end(cold=False)

    assert heard("dies", 0) == told


def test_a_request_tells_of_its_call(app: Celery) -> None:
    class Keeps(Request):
        """Keeps itself."""

        def on_accepted(self, pid: int, time_accepted: float) -> None:
            super().on_accepted(pid, time_accepted)
            HEARD.append(("kept", self))

    task = app.task(name="add", Request=Keeps, time_limit=30)(lambda x, y: x + y)
    with start_worker(app, pool="threads", concurrency=1, hostname="one@host"):
        result = task.apply_async((1,), {"y": 2}, time_limit=20)
        assert result.get(timeout=TIMEOUT) == 3
        [(request,)] = heard("kept", 1)

    assert (request.id, request.task_id, request.correlation_id) == (result.id,) * 3
    assert (request.name, request.type, request.task_name) == ("add",) * 3
    assert (list(request.args), request.kwargs) == ([1], {"y": 2})
    assert (request.task, request.app, request.hostname) == (task, app, "one@host")
    assert request.time_limits == (20, None)
    assert request.delivery_info["routing_key"] == "celery"
    assert request.argsrepr == "(1,)"
    assert request.store_errors
    assert str(request) == f"add[{result.id}]"
    assert request.info()["worker_pid"] == request.worker_pid
    assert not hasattr(request, "no_such_header")


def test_a_class_is_named_by_its_path_and_the_usual_one_costs_nothing(app: Celery) -> None:
    app.task(name="usual", Request="celery.worker.request:Request")(lambda: 1)
    by_path = app.task(name="path", Request=f"{__name__}:Mine")(lambda: 1)
    with start_worker(app, pool="threads", concurrency=1) as worker:
        by_path.delay().get(timeout=TIMEOUT)
        [hooks] = worker.companions
        assert isinstance(hooks, RequestHooks)
        assert not hooks.minds(app.tasks["usual"])
