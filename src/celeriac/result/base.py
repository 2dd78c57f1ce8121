"""What all results share: waiting, and the rule against waiting inside a task."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from celeriac import context
from celeriac.errors import TimeoutError  # noqa: A004 - the name that users catch
from celeriac.message import Outcome
from celeriac.ports import ResultBackend

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

    def leaves(self) -> Iterator[Any]:
        """Yield the results of single tasks in it that a backend has to be asked for."""
        return iter(())


def outcomes_in_slices(
    backend: ResultBackend,
    ids: Sequence[str],
    timeout: float | None,
    interval: float,
    on_interval: Callable[[], Any] | None,
) -> Iterator[Outcome]:
    """Yield outcomes as they come, and call ``on_interval`` every ``interval`` seconds in between."""
    if on_interval is None:
        yield from backend.wait(ids, timeout)
        return
    pending = list(ids)
    end = None if timeout is None else time.monotonic() + timeout
    while pending:
        remaining = interval if end is None else min(interval, end - time.monotonic())
        if remaining <= 0:
            raise TimeoutError(TIMED_OUT)
        try:
            for outcome in backend.wait(pending, remaining):
                pending = [id for id in pending if id != outcome.id]
                yield outcome
        except TimeoutError:
            on_interval()


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
