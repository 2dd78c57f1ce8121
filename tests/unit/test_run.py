"""One run of one call: the order of what happens, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from celeriac import context
from celeriac.context import Context
from celeriac.errors import EncodeError, Ignore, Reject, Retry
from celeriac.hooks import Hooks
from celeriac.run import Ending, ErrorInfo, run
from celeriac.task import Task
from desk import new_app


class Stage:
    """Notes what it is asked to do."""

    def __init__(self, hooks: Hooks) -> None:
        self.hooks = hooks
        self.log: list[str] = []
        self.failures: list[Exception] = []
        self.errors: list[Exception] = []

    def started(self, task: Any, request: Context) -> None:
        self.log.append("started")

    def call(self, body: Callable[[], Any]) -> Any:
        return body()

    def conclude(self, task: Any, request: Context, ending: Ending) -> None:
        self.log.append(f"conclude {ending.kind}")
        if self.failures:
            raise self.failures.pop(0)

    def internal_error(self, task: Any, request: Context, exc: Exception) -> None:
        self.errors.append(exc)


class Noting(Task[Any, Any]):
    """Notes its own hooks."""

    log: list[str]
    what: Any = None

    def run(self, *args: Any, **kwargs: Any) -> Any:
        self.log.append("body")
        if isinstance(self.what, BaseException):
            raise self.what
        return self.what

    def before_start(self, task_id: Any, args: Any, kwargs: Any) -> None:
        self.log.append(f"before_start {task_id} {args} {kwargs}")

    def on_success(self, retval: Any, task_id: Any, args: Any, kwargs: Any) -> None:
        self.log.append(f"on_success {retval}")

    def on_failure(self, exc: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
        self.log.append(f"on_failure {exc!r} {einfo.exception!r}")

    def on_retry(self, exc: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
        self.log.append(f"on_retry {exc!r}")

    def after_return(
        self, status: Any, retval: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        self.log.append(f"after_return {status} {retval!r} {einfo}")


SIGNALS = ("task_prerun", "task_postrun", "task_success", "task_failure", "task_retry")


@pytest.fixture
def task() -> Noting:
    app = new_app()
    task: Noting = app.register_task(Noting())
    app.finalize()
    return task


@pytest.fixture
def stage(task: Noting) -> Stage:
    stage = Stage(task.app.hooks)
    task.log = stage.log
    for name in SIGNALS:
        task.app.hooks.get(name).connect(_noting(name, stage.log), weak=False)
    return stage


def _noting(name: str, log: list[str]) -> Any:
    return lambda **kwargs: log.append(name)


def request() -> Context:
    return Context(id="1", args=(1,), kwargs={"k": 2}, called_directly=False)


def test_a_success_goes_through_all_steps_in_order(task: Noting, stage: Stage) -> None:
    task.what = 5

    ending = run(task, request(), stage)

    assert (ending.kind, ending.state, ending.value) == ("success", "SUCCESS", 5)
    assert stage.log == [
        "task_prerun",
        "started",
        "before_start 1 (1,) {'k': 2}",
        "body",
        "conclude success",
        "on_success 5",
        "task_success",
        "after_return SUCCESS 5 None",
        "task_postrun",
    ]
    assert context.current() is None


def test_a_failure_keeps_exception_and_traceback(task: Noting, stage: Stage) -> None:
    task.what = KeyError("x")

    ending = run(task, request(), stage)

    assert (ending.kind, ending.state, ending.value) == ("failure", "FAILURE", task.what)
    assert ending.einfo is not None
    assert ending.einfo.traceback.startswith("Traceback (most recent call last):\n")
    assert ending.einfo.traceback.endswith("KeyError: 'x'\n")
    assert "celeriac/run.py" not in ending.einfo.traceback
    assert stage.log[3:] == [
        "body",
        "conclude failure",
        "on_failure KeyError('x') KeyError('x')",
        "task_failure",
        "after_return FAILURE KeyError('x') None",
        "task_postrun",
    ]


def test_an_exception_of_before_start_fails_the_task(task: Noting, stage: Stage) -> None:
    def before_start(*args: Any) -> None:
        raise ValueError("not today")

    task.before_start = before_start  # type: ignore[method-assign,assignment]

    ending = run(task, request(), stage)

    assert ending.kind == "failure"
    assert "body" not in stage.log


def test_a_failure_that_the_task_expects_is_marked(task: Noting, stage: Stage) -> None:
    task.throws = (KeyError,)
    task.what = KeyError("x")
    assert run(task, request(), stage).expected

    task.what = ValueError("x")
    assert not run(task, request(), stage).expected


@pytest.mark.parametrize(
    ("raised", "kind", "state"),
    [
        (Ignore(), "ignore", "IGNORED"),
        (Reject("why"), "reject", "REJECTED"),
        (Reject("why", requeue=True), "requeue", "REJECTED"),
    ],
)
def test_signals_end_a_run_without_the_tasks_hooks(
    task: Noting, stage: Stage, raised: Exception, kind: str, state: str
) -> None:
    task.what = raised

    ending = run(task, request(), stage)

    assert (ending.kind, ending.state, ending.exception) == (kind, state, raised)
    assert stage.log[3:] == ["body", f"conclude {kind}", "task_postrun"]


def test_a_retry_is_told_to_on_retry_with_its_reason(task: Noting, stage: Stage) -> None:
    reason = KeyError("x")
    task.what = Retry(exc=reason, when=1)

    ending = run(task, request(), stage)

    assert (ending.kind, ending.state, ending.value) == ("retry", "RETRY", reason)
    assert stage.log[3:] == [
        "body",
        "conclude retry",
        "on_retry KeyError('x')",
        "task_retry",
        "task_postrun",
    ]


def test_a_result_that_cannot_be_concluded_is_a_failure(task: Noting, stage: Stage) -> None:
    task.what = {1}
    stage.failures = [EncodeError("no form")]

    ending = run(task, request(), stage)

    assert ending.kind == "failure"
    assert isinstance(ending.value, EncodeError)
    assert "conclude success" in stage.log
    assert "conclude failure" in stage.log
    assert not any(entry.startswith("on_success") for entry in stage.log)


def test_a_failure_that_cannot_be_concluded_is_raised_and_the_stack_left_clean(
    task: Noting, stage: Stage
) -> None:
    task.what = KeyError("x")
    stage.failures = [OSError("away")]

    with pytest.raises(OSError, match="away"):
        run(task, request(), stage)

    assert context.current() is None
    assert stage.log[-1] == "task_postrun"


def test_a_hook_of_the_task_that_raises_does_not_change_the_ending(task: Noting, stage: Stage) -> None:
    def on_success(*args: Any) -> None:
        raise ValueError("broken hook")

    task.on_success = on_success  # type: ignore[method-assign,assignment]
    task.what = 5

    ending = run(task, request(), stage)

    assert ending.kind == "success"
    assert [str(error) for error in stage.errors] == ["broken hook"]


@pytest.mark.parametrize("fatal", [SystemExit(1), KeyboardInterrupt(), MemoryError()])
def test_what_ends_the_process_passes_through(task: Noting, stage: Stage, fatal: BaseException) -> None:
    task.what = fatal

    with pytest.raises(type(fatal)):
        run(task, request(), stage)

    assert context.current() is None
    assert stage.log[-1] == "task_postrun"


def test_inside_the_body_the_request_is_the_tasks_own(stage: Stage) -> None:
    app = new_app()
    seen = []

    @app.task(bind=True)
    def look(self: Any) -> None:
        seen.append(self.request)

    app.finalize()
    mine = Context(id="1", args=(), kwargs={}, called_directly=False)
    run(look, mine, stage)

    assert seen == [mine]
    assert look.request.id is None


def test_an_overridden_call_is_run_once_and_keeps_the_request(stage: Stage) -> None:
    app = new_app()
    seen = []

    class Around(app.Task):  # type: ignore[name-defined,misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            seen.append("around")
            return super().__call__(*args, **kwargs)

    @app.task(base=Around, bind=True)
    def look(self: Any) -> None:
        seen.append(self.request.id)

    app.finalize()
    run(look, Context(id="1", args=(), kwargs={}, called_directly=False), stage)

    assert seen == ["around", "1"]


def test_an_error_info_shows_the_traceback_as_text() -> None:
    try:
        raise ValueError("x")
    except ValueError:
        info = ErrorInfo()

    assert info.type is ValueError
    assert str(info) == info.traceback
    assert "ValueError: x" in info.traceback
