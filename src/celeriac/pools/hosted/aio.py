"""The asyncio pool: coroutines on one event loop, other tasks beside them on threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, cast

from celeriac.execute.coroutines import CoroutineLimit
from celeriac.message import Finished, Job
from celeriac.pools.base import PoolOptions, Runner
from celeriac.pools.hosted.host import Host, escaped, host_main
from celeriac.pools.hosted.line import HostEnd
from celeriac.pools.hosted.pool import HostedPool
from celeriac.pools.limits import ThreadLimit

_MOST_THREADS = 100_000  # the node gives no more jobs than the pool has slots


class AsyncRunner(Runner, Protocol):
    """A runner that can run jobs on an event loop as well."""

    def awaits(self, job: Job) -> bool:
        """Return whether a job is for `run_async`; others block, and are given to `run`."""
        ...

    async def run_async(self, job: Job, limit: CoroutineLimit) -> Finished:
        """Run a job to its end.

        ``CancelledError`` and what else is no ``Exception`` means that the job is lost.

        Args:
            job: What to run.
            limit: To be had drive the user's coroutine.
        """
        ...


class _Seat:
    """What is known of a job that runs."""

    def __init__(self, job: Job, runner: AsyncRunner) -> None:
        self.job = job
        self.runner = runner
        self.started: float = time.time()
        self.clock: float = time.monotonic()
        self.limit: CoroutineLimit | ThreadLimit = CoroutineLimit(job.soft_limit_seconds)

    def is_overdue(self) -> bool:
        """Return whether it is past its hard limit."""
        hard = self.job.hard_limit_seconds
        return hard is not None and time.monotonic() - self.clock >= hard


class AsyncioHost(Host):
    """Runs each coroutine as an `asyncio.Task` of one loop, in the main thread, and the rest on threads."""

    def __init__(self, line: HostEnd, make_runner: Callable[[], Runner]) -> None:
        super().__init__(line, make_runner)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._seats: dict[int, _Seat] = {}
        self._of_task: dict[asyncio.Task[Any], _Seat] = {}
        self._threads = ThreadPoolExecutor(_MOST_THREADS, "celeriac-thread")
        self._over = asyncio.Event()

    def serve(self) -> None:
        """Run the loop until told to stop."""
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.line, self._on_mail)
        self.line.ready()
        await self._over.wait()
        self._loop.remove_reader(self.line)
        self.flush()

    def _on_mail(self) -> None:
        if not self.read_all():
            self._over.set()

    def soon(self, function: Callable[[], None]) -> None:
        """Have a function called in the loop's next turn."""
        assert self._loop is not None
        self._loop.call_soon(function)

    def begin(self, job: Job, runner: Runner) -> None:
        """Have a job begun."""
        assert self._loop is not None
        seat = self._seats[job.number] = _Seat(job, cast("AsyncRunner", runner))
        if seat.runner.awaits(job):
            task = self._loop.create_task(self._run_async(seat), name=f"{job.task}[{job.id}]")
            self._of_task[task] = seat
            task.add_done_callback(self._of_task.pop)
            return
        seat.limit = limit = ThreadLimit()
        limit.seconds = float("inf") if job.soft_limit_seconds is None else job.soft_limit_seconds
        if job.soft_limit_seconds is not None:
            timer = self._loop.call_later(job.soft_limit_seconds, limit.expire)
            self._threads.submit(self._run, seat, limit, timer.cancel)
        else:
            self._threads.submit(self._run, seat, limit, None)

    async def _run_async(self, seat: _Seat) -> None:
        limit = seat.limit
        assert isinstance(limit, CoroutineLimit)
        try:
            report = await seat.runner.run_async(seat.job, limit)
        except BaseException as exc:  # noqa: BLE001 - it ends the job, not the loop with all the others
            self._end(seat, exc)
        else:
            self._end(seat, report)

    def _run(self, seat: _Seat, limit: ThreadLimit, disarm: Callable[[], None] | None) -> None:
        """Run a job in this thread."""
        result: Finished | BaseException
        try:
            result = seat.runner.run(seat.job, limit)
        except BaseException as exc:  # noqa: BLE001 - as above
            result = exc
        assert self._loop is not None
        if disarm is not None:
            self._loop.call_soon_threadsafe(disarm)
        self._loop.call_soon_threadsafe(self._end, seat, result)

    def _end(self, seat: _Seat, result: Finished | BaseException) -> None:
        del self._seats[seat.job.number]
        report = escaped(seat.job, result) if isinstance(result, BaseException) else result
        self.ended(report, seat.started, seat.runner)

    def end(self, number: int, signum: int) -> None:
        """Have `asyncio.CancelledError` raised in a coroutine, ``SystemExit`` in a thread."""
        seat = self._seats.get(number)
        if seat is None:
            return
        if isinstance(seat.limit, CoroutineLimit):
            seat.limit.end()
        else:
            seat.limit.strike(SystemExit)

    def interrupt(self) -> None:
        """Raise in the coroutine that blocks the loop, if it is past one of its limits."""
        if self._loop is None or threading.get_ident() != threading.main_thread().ident:
            return
        task = asyncio.current_task(self._loop)
        seat = None if task is None else self._of_task.get(task)
        if seat is not None and isinstance(seat.limit, CoroutineLimit):
            seat.limit.interrupt(end=seat.is_overdue())


def make_pool(options: PoolOptions, make_runner: Callable[[], Runner]) -> HostedPool:
    """Return the asyncio pool."""
    return HostedPool("asyncio", options, host_main(AsyncioHost, make_runner, options))
