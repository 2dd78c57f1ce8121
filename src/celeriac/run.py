"""One run of one call of one task: the steps that every place of running shares.

`run` is what a worker's executor, eager mode and unit tests have in common: open (stack, prerun hook), call,
classify, conclude (the place's own: follow-ups, encoding), announce (the task's hooks, then the signals),
close. What differs between the places is behind `Stage`.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeVar

import msgspec

from celeriac import context, states
from celeriac.context import Context
from celeriac.errors import Ignore, Reject, Retry
from celeriac.hooks import Hooks
from celeriac.message import OutcomeKind
from celeriac.saferepr import saferepr

logger: logging.Logger = logging.getLogger(__name__)

_LONGEST_TRACEBACK = 100_000  # characters; of a huge message it would have all
_CALL = "call_task"  # the innermost function of ours above a task's body

R = TypeVar("R")

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class ErrorInfo:
    """An exception with its traceback as text: the ``einfo`` of hooks and signals.

    Args:
        exc_info: As from ``sys.exc_info()``, which is taken when it is not given.
        internal: Whether it came from outside the task's body.
    """

    def __init__(self, exc_info: ExcInfo | None = None, internal: bool = False) -> None:
        kind, exception, tb = exc_info or sys.exc_info()
        self.type = kind
        self.exception = exception
        self.tb: TracebackType | None = _below_our_frames(tb)
        self.internal = internal
        self._text: str | None = None

    @property
    def traceback(self) -> str:
        """The traceback as Python prints it, without the frames of the machinery above the task."""
        if self._text is None:
            self._text = _formatted(self.type, self.exception, self.tb)
        return self._text

    def __str__(self) -> str:
        """Return the traceback."""
        return self.traceback

    def __repr__(self) -> str:
        """Name the exception."""
        return f"<ExceptionInfo: {self.exception!r}>"


class Ending(msgspec.Struct, kw_only=True):
    """How a run ended."""

    kind: OutcomeKind
    state: str
    value: Any = None  # Any: the return value; the exception when it is none
    exception: BaseException | None = None  # what the body raised, signals such as `Retry` included
    einfo: ErrorInfo | None = None
    expected: bool = False  # a failure of a class that the task lists in `throws`
    runtime: float = 0.0  # seconds in the body

    @property
    def returned(self) -> Any:  # Any: as value
        """What the body returned or raised; of a retry that is the `Retry`, where ``value`` is its reason."""
        return self.exception if self.kind == "retry" else self.value


class Runnable(Protocol):
    """What a task is to those who run it."""

    name: str
    throws: tuple[type[BaseException], ...]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a plain function call."""
        ...

    def body(self) -> Callable[..., Any]:
        """Return what to call: ``run``, or ``__call__`` where somebody has overridden it."""
        ...

    def before_start(self, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Run before the body."""
        ...

    def on_success(self, retval: Any, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Run after a success."""
        ...

    def on_retry(
        self,
        exc: BaseException | None,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: Any,
    ) -> None:
        """Run after the body has asked to be run again."""
        ...

    def on_failure(
        self, exc: BaseException, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any], einfo: Any
    ) -> None:
        """Run after a failure."""
        ...

    def after_return(
        self,
        status: str,
        retval: Any,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: Any,
    ) -> None:
        """Run after a success or failure."""
        ...


class Stage(Protocol):
    """The place of a run: a worker's child, or the caller's own process in eager mode."""

    hooks: Hooks

    def started(self, task: Runnable, request: Context) -> None:
        """Note that the run begins, before the body does."""
        ...

    def call(self, body: Callable[[], Any]) -> Any:
        """Call the body, within its limits; a coroutine that it returns is driven to its end."""
        ...

    def conclude(self, task: Runnable, request: Context, ending: Ending) -> None:
        """Do what follows from the ending: callbacks, chain, chord part, the encoded outcome.

        What it raises for a success turns that into a failure, and it is called again with that.
        """
        ...

    def internal_error(self, task: Runnable, request: Context, exc: Exception) -> None:
        """Note that something outside the body failed after the run had ended; may raise it again."""
        ...


class AsyncStage(Stage, Protocol):
    """The place of a run on an event loop, beside others."""

    async def call_async(self, body: Callable[[], Any]) -> Any:
        """Call the body and wait for the coroutine that it returns, within its limits."""
        ...

    async def started_async(self, task: Runnable, request: Context) -> None:
        """Do as `started`, so that the loop does not wait for a store."""
        ...

    async def aside(self, function: Callable[[], R]) -> R:
        """Call a function that concludes, so that the loop does not wait for broker or store."""
        ...


def run(task: Runnable, request: Context, stage: Stage) -> Ending:
    """Run a task for a request and return how it ended.

    ``SystemExit``, ``KeyboardInterrupt`` and what else is no ``Exception`` leaves the run as it is.
    """
    ending = Ending(kind="failure", state=states.FAILURE)
    _open(task, request, stage)
    try:
        started = time.perf_counter()
        try:
            ending = Ending(kind="success", state=states.SUCCESS, value=stage.call(_body(task, request)))
        except MemoryError:
            raise  # there is nothing left to report it with: the process ends and is replaced
        except Exception as exc:  # noqa: BLE001 - wall: the user's code
            ending = classify(task, exc)
        ending.runtime = time.perf_counter() - started
        ending = _conclude(task, request, stage, ending)
        _announce(task, request, stage, ending)
        return ending
    finally:
        _close(task, request, stage, ending)


async def run_async(task: Runnable, request: Context, stage: AsyncStage) -> Ending:
    """Do as `run`, for a task whose body is a coroutine."""
    ending = Ending(kind="failure", state=states.FAILURE)
    _enter(task, request, stage)
    try:
        await stage.started_async(task, request)
        started = time.perf_counter()
        try:
            value = await stage.call_async(_body(task, request))
            ending = Ending(kind="success", state=states.SUCCESS, value=value)
        except MemoryError:
            raise  # as in `run`
        except Exception as exc:  # noqa: BLE001 - wall: the user's code
            ending = classify(task, exc)
        ending.runtime = time.perf_counter() - started
        ended = ending
        ending = await stage.aside(lambda: _conclude(task, request, stage, ended))
        _announce(task, request, stage, ending)
        return ending
    finally:
        _close(task, request, stage, ending)


def classify(task: Runnable, exc: Exception) -> Ending:
    """Return the ending that an exception of the body (being handled now) stands for."""
    if isinstance(exc, Retry):
        return Ending(
            kind="retry", state=states.RETRY, value=exc.exc, exception=exc, einfo=_error_info(task, exc)
        )
    if isinstance(exc, Ignore):
        return Ending(kind="ignore", state=states.IGNORED, value=exc, exception=exc)
    if isinstance(exc, Reject):
        kind: OutcomeKind = "requeue" if exc.requeue else "reject"
        return Ending(
            kind=kind, state=states.REJECTED, value=exc, exception=exc, einfo=_error_info(task, exc)
        )
    return Ending(
        kind="failure",
        state=states.FAILURE,
        value=exc,
        exception=exc,
        einfo=_error_info(task, exc),
        expected=isinstance(exc, tuple(task.throws)),
    )


def _open(task: Runnable, request: Context, stage: Stage) -> None:
    _enter(task, request, stage)
    try:
        stage.started(task, request)
    except BaseException:
        context.pop()
        raise


def _enter(task: Runnable, request: Context, stage: Stage) -> None:
    context.push(task, request)
    try:
        prerun = stage.hooks.task_prerun
        if prerun.receivers:
            prerun.send(task, task_id=request.id, task=task, args=request.args, kwargs=request.kwargs)
    except BaseException:
        context.pop()
        raise


def _close(task: Runnable, request: Context, stage: Stage, ending: Ending) -> None:
    try:
        postrun = stage.hooks.task_postrun
        if postrun.receivers:
            postrun.send(
                task,
                task_id=request.id,
                task=task,
                args=request.args,
                kwargs=request.kwargs,
                retval=ending.returned,
                state=ending.state,
            )
    finally:
        context.pop()


def _body(task: Runnable, request: Context) -> Callable[[], Any]:
    function = task.body()
    args, kwargs = request.args, request.kwargs

    def call_task() -> Any:
        task.before_start(request.id or "", args, kwargs)
        return function(*args, **kwargs)

    return call_task


def _conclude(task: Runnable, request: Context, stage: Stage, ending: Ending) -> Ending:
    try:
        stage.conclude(task, request, ending)
    except Exception as exc:
        if ending.kind != "success":
            raise
        # The result cannot be encoded, or what follows cannot be sent: not a success that anybody can see.
        runtime = ending.runtime
        ending = classify(task, exc)
        ending.runtime = runtime
        stage.conclude(task, request, ending)
    return ending


def _announce(task: Runnable, request: Context, stage: Stage, ending: Ending) -> None:
    try:
        if ending.kind == "success":
            _announce_success(task, request, stage, ending)
        elif ending.kind == "failure":
            _announce_failure(task, request, stage, ending)
        elif ending.kind == "retry":
            _announce_retry(task, request, stage, ending)
    except Exception as exc:  # noqa: BLE001 - wall: the task's own hooks
        stage.internal_error(task, request, exc)


def _announce_success(task: Runnable, request: Context, stage: Stage, ending: Ending) -> None:
    task_id = request.id or ""
    task.on_success(ending.value, task_id, request.args, request.kwargs)
    if stage.hooks.task_success.receivers:
        stage.hooks.task_success.send(task, result=ending.value)
    task.after_return(ending.state, ending.value, task_id, request.args, request.kwargs, None)


def _announce_failure(task: Runnable, request: Context, stage: Stage, ending: Ending) -> None:
    task_id = request.id or ""
    einfo = ending.einfo
    task.on_failure(ending.value, task_id, request.args, request.kwargs, einfo)
    if stage.hooks.task_failure.receivers:
        stage.hooks.task_failure.send(
            task,
            task_id=task_id,
            exception=ending.value,
            args=request.args,
            kwargs=request.kwargs,
            traceback=einfo.tb if einfo is not None else None,
            einfo=einfo,
        )
    # Celery gives no einfo to after_return, whatever the ending; hooks written for it count on that.
    task.after_return(ending.state, ending.value, task_id, request.args, request.kwargs, None)


def _announce_retry(task: Runnable, request: Context, stage: Stage, ending: Ending) -> None:
    task.on_retry(ending.value, request.id or "", request.args, request.kwargs, ending.einfo)
    if stage.hooks.task_retry.receivers:
        stage.hooks.task_retry.send(task, request=request, reason=ending.exception, einfo=ending.einfo)


def _error_info(task: Runnable, exc: BaseException) -> ErrorInfo:
    make: Callable[[ExcInfo], ErrorInfo] = getattr(task, "error_info", ErrorInfo)
    return make((type(exc), exc, exc.__traceback__))


def _formatted(kind: Any, exception: BaseException | None, tb: TracebackType | None) -> str:
    """Return a traceback as text, cut in the middle when it is longer than anybody reads."""
    try:
        text = "".join(traceback.format_exception(kind, exception, tb))
    except Exception:  # noqa: BLE001 - the exception is the user's, and may raise whatever is asked of it
        frames = "".join(traceback.format_tb(tb))
        text = f"Traceback (most recent call last):\n{frames}{kind.__qualname__}: {saferepr(exception)}\n"
    if len(text) <= _LONGEST_TRACEBACK:
        return text
    left_out = len(text) - _LONGEST_TRACEBACK
    half = _LONGEST_TRACEBACK // 2
    return f"{text[:half]}\n... {left_out} characters left out ...\n{text[-half:]}"


def _below_our_frames(tb: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that begins in the task; all of it when the task was never reached."""
    inner = tb
    while inner is not None:
        frame = inner.tb_frame
        if frame.f_code.co_name == _CALL and frame.f_globals.get("__name__") == __name__:
            return inner.tb_next or inner
        inner = inner.tb_next
    return tb
