"""Running the coroutines of ``async def`` tasks, each to its end, on one event loop that is kept."""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Coroutine, Generator
from typing import Any

from celeriac.errors import SoftTimeLimitExceeded


class CoroutineRunner:
    """The event loop of one child or thread. It is made for the first coroutine and stays for the next ones,
    so that what a library binds to it (connections, locks) stays usable.
    """

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any], soft_seconds: float | None) -> Any:  # Any: its result
        """Run a coroutine to its end and return what it returns.

        Args:
            coroutine: What a task's body has returned.
            soft_seconds: After which `SoftTimeLimitExceeded` is raised where it waits.
        """
        if self._runner is None:
            self._runner = asyncio.Runner()
        if soft_seconds is not None:
            coroutine = _limited(coroutine, soft_seconds)
        # With a copy of this context: the coroutine has to know which task it belongs to.
        return self._runner.run(coroutine, context=contextvars.copy_context())

    def close(self) -> None:
        """Close the loop, if there is one."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()


async def _limited(coroutine: Coroutine[Any, Any, Any], seconds: float) -> Any:  # Any: its result
    limit = _Limit()
    timer = asyncio.get_running_loop().call_later(seconds, limit.strike)
    try:
        return await _drive(coroutine, limit)
    finally:
        timer.cancel()


class _Limit:
    """Cancels the task that made it, and knows that it was not somebody else."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._struck = False

    def strike(self) -> None:
        self._struck = True
        self._task.cancel()

    def take(self) -> bool:
        """Return whether a cancellation was ours, once, and undo it."""
        if not self._struck:
            return False
        self._struck = False
        self._task.uncancel()
        return True


@types.coroutine
def _drive(
    coroutine: Coroutine[Any, Any, Any], limit: _Limit
) -> Generator[Any, Any, Any]:  # Any: what it waits for, and its result
    """Pass everything through to a coroutine, but our own cancellation as `SoftTimeLimitExceeded`."""
    raised: BaseException | None = None
    while True:
        try:
            waits_for = coroutine.send(None) if raised is None else coroutine.throw(raised)
        except StopIteration as stop:
            return stop.value
        raised = None
        try:
            yield waits_for
        except asyncio.CancelledError as exc:
            raised = SoftTimeLimitExceeded() if limit.take() else exc
        except BaseException as exc:  # noqa: BLE001 - what it waited for has failed: its own affair
            raised = exc
