"""What all results share: waiting, and the rule against waiting inside a task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from celeriac import context
from celeriac.errors import TimeoutError  # noqa: A004 - the name that users catch
from celeriac.message import Outcome
from celeriac.ports import ResultBackend
from celeriac.states import READY_STATES

WOULD_BLOCK = (
    "Never call result.get() within a task! It holds a slot of the worker that the other task may need. "
    "Use a chain or a callback, or wrap the call in allow_join_result() when you know that it cannot block."
)
TIMED_OUT = "The operation timed out."
NO_BACKEND = "No result backend is configured. Set result_backend to read results."


def assert_will_not_block() -> None:
    """Raise RuntimeError when waiting for a result here could wait for ever, that is: inside a task."""
    if context.join_blocks():
        raise RuntimeError(WOULD_BLOCK)


class WhenReady:
    """The promise of a result, as far as programs for Celery use it."""

    def __init__(self, result: Any) -> None:  # Any: a result that has `then`
        self._result = result

    @property
    def ready(self) -> bool:
        """Whether the outcome is there."""
        return bool(self._result.ready())

    def then(self, callback: Callable[[Any], Any], on_error: Callable[[Any], Any] | None = None) -> Any:
        """Call back with the result once its outcome is seen here."""
        return self._result.then(callback, on_error)


class ResultBase:
    """Root of the results: of one task, of many, and of one that ran right here."""

    parent: ResultBase | None = None  # of the step before in a chain
    id: str = ""

    def as_tuple(self) -> Any:  # Any: nested result tuples
        """Return it as nested tuples that can be stored; `result_from_tuple` reads them back."""
        raise NotImplementedError

    def as_list(self) -> list[str]:
        """Return the ids in it, and those of the results before it."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Return whether there will be no further news of it."""
        raise NotImplementedError

    def forget(self) -> None:
        """Remove what the backend keeps of it."""
        raise NotImplementedError

    @property
    def on_ready(self) -> WhenReady:
        """What is called back once the outcome is seen here: ``result.on_ready.then(callback)``."""
        return WhenReady(self)

    def leaves(self) -> Iterator[Any]:
        """Yield the results of single tasks in it that a backend has to be asked for."""
        return iter(())


class Interest(msgspec.Struct, frozen=True):
    """What else somebody who waits wants to be told."""

    interval: float = 0.5  # seconds between two calls of ``on_interval``
    on_interval: Callable[[], Any] | None = None
    on_message: Callable[[dict[str, Any]], Any] | None = None  # of states that are not final, too


def outcomes(
    backend: ResultBackend, ids: Sequence[str], timeout: float | None, interest: Interest
) -> Iterator[Outcome]:
    """Yield final outcomes as they come, and tell what there is an interest in.

    Raises:
        TimeoutError: (celeriac.errors) Not all came within ``timeout`` seconds.
    """
    if interest.on_interval is None and interest.on_message is None:
        yield from backend.wait(ids, timeout)
        return
    end = math.inf if timeout is None else time.monotonic() + timeout
    waiting = backend.waiting(every_state=interest.on_message is not None)
    try:
        waiting.add(ids)
        while waiting.missing:
            slice_end = (
                end if interest.on_interval is None else min(end, time.monotonic() + interest.interval)
            )
            heard = waiting.next(slice_end)
            if not heard:
                if time.monotonic() >= end:
                    raise TimeoutError(TIMED_OUT)
                if interest.on_interval is not None:
                    interest.on_interval()
            for outcome in heard:
                if interest.on_message is not None:
                    interest.on_message(as_meta(outcome))
                if outcome.state in READY_STATES:
                    yield outcome
    finally:
        waiting.close()


def as_meta(outcome: Outcome) -> dict[str, Any]:
    return {
        "task_id": outcome.id,
        "status": outcome.state,
        "result": outcome.result,
        "traceback": outcome.traceback,
        "children": outcome.children,
        "date_done": outcome.date_done,
        **(outcome.extended or {}),
    }


def as_exception(value: Any) -> BaseException:
    if isinstance(value, BaseException):
        return value.with_traceback(None)  # or every raising of it would add its frames to the same object
    return Exception(value)
