"""Running the coroutines of ``async def`` tasks, within their limits."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import time
import types
from collections.abc import Coroutine, Generator
from typing import Any

from celeriac.errors import SoftTimeLimitExceeded
from celeriac.pools.limits import SLACK_SECONDS, Counting


class CoroutineRunner:
    """The event loop of one child or thread. It is made for the first coroutine and stays for the next ones,
    so that what a library binds to it (connections, locks) stays usable.
    """

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def run(
        self, coroutine: Coroutine[Any, Any, Any], soft_seconds: float | None, seat: Counting | None
    ) -> Any:  # Any: its result
        """Run a coroutine to its end and return what it returns.

        Args:
            coroutine: What a task's body has returned.
            soft_seconds: After which `SoftTimeLimitExceeded` is raised where it waits.
            seat: The limit of the process or thread, by which the coroutine may be told to end.

        Raises:
            concurrent.futures.CancelledError: Something has cancelled it; as an ``Exception``, for that is
                the task's own affair and no end of the process.
            SystemExit: It was told to end.
        """
        if self._runner is None:
            self._runner = asyncio.Runner()
        limit = CoroutineLimit(soft_seconds)
        try:
            if seat is not None:
                seat.attend(_Here(limit, self._runner.get_loop()))
            # With a copy of this context: the coroutine has to know which task it belongs to.
            return self._runner.run(limit.drive(coroutine), context=contextvars.copy_context())
        except asyncio.CancelledError as exc:
            raise SystemExit from exc
        finally:
            if seat is not None:
                seat.attend(None)
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()

    def close(self) -> None:
        """Close the loop, if there is one."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()


class _Here:
    """A coroutine of this thread's loop, `celeriac.pools.limits.Awaited`.

    Args:
        limit: That of the coroutine.
        loop: Where it runs.
    """

    def __init__(self, limit: CoroutineLimit, loop: asyncio.AbstractEventLoop) -> None:
        self._limit = limit
        self._loop = loop

    def end(self) -> None:
        """Have it see `asyncio.CancelledError`."""
        self._loop.call_soon_threadsafe(self._limit.end)

    def interrupt(self, *, end: bool) -> None:
        """Raise right here what it is due, if it is its code that runs."""
        if self._limit.is_in(asyncio.current_task(self._loop)):
            self._limit.interrupt(end=end)


class CoroutineLimit:
    """What can be raised inside one coroutine, where it waits, and nowhere else.

    Args:
        seconds: After which `SoftTimeLimitExceeded` is raised in it; None: never.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._task: asyncio.Task[Any] | None = None  # while it runs
        self._deadline: float | None = None  # of the soft limit, as long as that has not struck
        self._struck = False
        self._ended = False  # by `end`

    async def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:  # Any: its result
        """Run the coroutine to its end, as a part of the `asyncio.Task` that calls this.

        Raises:
            asyncio.CancelledError: Because of `end`.
            concurrent.futures.CancelledError: For any other reason.
        """
        if self._ended:
            coroutine.close()
            raise asyncio.CancelledError
        self._task = asyncio.current_task()
        timer = None
        if self._seconds is not None:
            self._deadline = time.monotonic() + self._seconds
            timer = asyncio.get_running_loop().call_later(self._seconds, self._strike)
        try:
            # Straight on where there is no need to look at what it is told: a step of it costs half as much.
            return await (coroutine if self._seconds is None else _drive(coroutine, self))
        except asyncio.CancelledError as exc:
            if self._ended:
                raise
            raise concurrent.futures.CancelledError(*exc.args) from exc
        finally:
            self._task = None
            if timer is not None:
                timer.cancel()

    def end(self) -> None:
        """Have it see `asyncio.CancelledError`; nothing happens when it has ended."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()

    def is_in(self, task: asyncio.Task[Any] | None) -> bool:
        """Return whether the coroutine runs as a part of a task, and not in one that it has made."""
        return task is not None and task is self._task

    def interrupt(self, *, end: bool) -> None:
        """Raise right here, in the coroutine's own frames, what it is due: for handlers of signals.

        Args:
            end: Whether it has to end.

        Raises:
            SoftTimeLimitExceeded: It is past its soft limit.
            asyncio.CancelledError: It has to end.
        """
        if self._task is None:
            return
        if end:
            self._ended = True
            raise asyncio.CancelledError
        if self._deadline is not None and time.monotonic() >= self._deadline - SLACK_SECONDS:
            self._deadline = None
            raise SoftTimeLimitExceeded

    def take(self) -> bool:
        """Return whether a cancellation was the soft limit's, once, and undo it."""
        if not self._struck:
            return False
        self._struck = False
        assert self._task is not None
        self._task.uncancel()
        return True

    def _strike(self) -> None:
        if self._deadline is not None and self._task is not None:
            self._deadline = None
            self._struck = True
            self._task.cancel()


@types.coroutine
def _drive(
    coroutine: Coroutine[Any, Any, Any], limit: CoroutineLimit
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
