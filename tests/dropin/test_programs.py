"""Celery programs, unchanged, with a worker in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from celeriac.testing.worker import start_worker
from celery import Celery, Task, chain, chord, current_app, current_task, group, shared_task, signature
from celery.result import AsyncResult
from celery.signals import task_postrun, task_prerun, task_success
from celery.utils.log import get_task_logger

WAIT_SECONDS = 60


@pytest.fixture
def app(request: pytest.FixtureRequest) -> Iterator[Celery]:
    """Return an app with a worker of two threads, both in memory."""
    name = request.node.name
    app = Celery(name, broker=f"memory://{name}", backend=f"memory://{name}")
    with app:
        yield app


def test_a_shared_task_runs(app: Celery) -> None:
    @shared_task(bind=True)
    def who(self: Any, x: int) -> list[str]:
        return [current_app.main, current_task.name, self.request.id]

    with start_worker(app, pool="threads", concurrency=2):
        result = who.delay(1)

        assert result.get(timeout=WAIT_SECONDS) == [app.main, who.name, result.id]
    assert AsyncResult(result.id).state == "SUCCESS"


def test_workflows_run(app: Celery) -> None:
    @shared_task
    def add(x: int, y: int) -> int:
        return x + y

    @shared_task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    with start_worker(app, pool="threads", concurrency=2):
        chained = chain(add.s(1, 2), add.s(3), add.s(4))()
        grouped = group(add.s(i, i) for i in range(5))()
        joined = chord([add.s(i, i) for i in range(5)])(total.s())
        by_name = signature(add.name, args=(2, 2)).delay()

        assert chained.get(timeout=WAIT_SECONDS) == 10
        assert grouped.get(timeout=WAIT_SECONDS) == [0, 2, 4, 6, 8]
        assert joined.get(timeout=WAIT_SECONDS) == 20
        assert by_name.get(timeout=WAIT_SECONDS) == 4


def test_signals_of_the_process_hear_the_worker(app: Celery) -> None:
    heard: list[tuple[str, Any]] = []

    @task_prerun.connect
    def before(task_id: str = "", **_: Any) -> None:
        heard.append(("prerun", task_id))

    @task_success.connect
    def succeeded(result: Any = None, **_: Any) -> None:
        heard.append(("success", result))

    @task_postrun.connect
    def after(state: str = "", **_: Any) -> None:
        heard.append(("postrun", state))

    @app.task
    def double(x: int) -> int:
        return 2 * x

    with start_worker(app, pool="threads", concurrency=1):
        result = double.delay(2)
        result.get(timeout=WAIT_SECONDS)

    assert heard == [("prerun", result.id), ("success", 4), ("postrun", "SUCCESS")]


def test_a_task_class_with_hooks_and_retries(app: Celery) -> None:
    class Counting(Task):
        abstract = True
        seen: list[str] = []  # noqa: RUF012 - shared on purpose

        def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            self.seen.append(type(exc).__name__)

        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            self.seen.append(str(retval))

    @app.task(base=Counting, bind=True, max_retries=3)
    def flaky(self: Any) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0, exc=KeyError("not yet"))
        return int(self.request.retries)

    with start_worker(app, pool="threads", concurrency=1):
        assert flaky.delay().get(timeout=WAIT_SECONDS) == 2

    assert Counting.seen == ["KeyError", "KeyError", "2"]


def test_task_loggers_name_the_task(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    logger = get_task_logger("tests.dropin.programs")

    @app.task
    def talk() -> None:
        logger.warning("here")

    with start_worker(app, pool="threads", concurrency=1):
        talk.delay().get(timeout=WAIT_SECONDS)

    assert logger.parent is not None
    assert logger.parent.name == "celery.task"


def test_the_pattern_of_flasks_guide(app: Celery) -> None:
    running: list[str] = []

    class FlaskTask(Task):
        def __call__(self, *args: object, **kwargs: object) -> object:
            running.append("in the context")
            return self.run(*args, **kwargs)

    celery_app = Celery("flaskr", task_cls=FlaskTask)
    celery_app.config_from_object(
        {"broker_url": "memory://flask", "result_backend": "memory://flask", "task_ignore_result": True}
    )
    celery_app.set_default()  # type: ignore[attr-defined]  # the drop-in adds it

    @shared_task(ignore_result=False)
    def add_together(a: int, b: int) -> int:
        return a + b

    with start_worker(celery_app, pool="threads", concurrency=1):
        assert add_together.delay(1, 2).get(timeout=WAIT_SECONDS) == 3

    assert running == ["in the context"]
