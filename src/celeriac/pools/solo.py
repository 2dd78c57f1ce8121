"""The solo pool: jobs run in the main thread, one at a time."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from celeriac.errors import TimeLimitExceeded
from celeriac.message import Job
from celeriac.pools.base import PoolOptions, Runner
from celeriac.pools.limits import MainThreadLimit, SeatLimit, ThreadLimit
from celeriac.pools.seats import NOBODY, Seat, SeatPool, T

logger: logging.Logger = logging.getLogger("celery.pool")

_GRACE_SECONDS = 0.5  # for a job to end that was told to

# Python runs signal handlers in the main thread alone, between two of its steps. A signal that comes after
# the last of them and before the thread sleeps wakes nobody: it would be acted on with the next task.
_HEED_SECONDS = 0.5


class SoloPool(SeatPool):
    """One seat in the thread that makes the pool and calls `serve_here`; the node's loop has another thread.

    So leases are renewed and commands answered while a long job runs. A job cannot be killed without the
    worker: past its hard limit `TimeLimitExceeded` is raised inside it. If it does not end for that, as it
    sits in C code, `on_stuck` is called: for the worker to begin anew. Otherwise its slot is free only when
    it has ended.

    Attributes:
        on_stuck: Called on the loop; None: nobody can help.

    Args:
        options: Not looked at: the size is one.
        make_runner: Called for what runs the jobs.
    """

    kind = "solo"

    def __init__(self, options: PoolOptions, make_runner: Callable[[], Runner]) -> None:
        super().__init__(PoolOptions(size=1), make_runner)
        self._offered: SimpleQueue[Seat | None] = SimpleQueue()
        self._door = threading.Lock()  # who goes through it knows on which side the serving thread is
        self._left = threading.Event()  # `serve_here` has returned
        self._in_main = threading.current_thread() is threading.main_thread()
        self._limit = MainThreadLimit() if self._in_main else ThreadLimit()
        self.on_stuck: Callable[[], None] | None = None

    def resize(self, size: int) -> None:
        """Refuse: there is one main thread.

        Raises:
            ValueError: Another number is asked for.
        """
        if size != 1:
            raise ValueError("The solo pool has one slot.")

    def serve_here(self) -> None:
        """Run jobs in this thread until the pool is stopped or `leave` is called."""
        before = None
        if isinstance(self._limit, MainThreadLimit):
            before = signal.signal(MainThreadLimit.SIGNAL, self._limit.on_signal)
        try:
            seat = self.await_item(self._offered)
            if seat is not None:
                self._serve(seat)
        finally:
            with self._door:
                self._left.set()
            if self._in_main:
                signal.signal(MainThreadLimit.SIGNAL, before)

    async def stop(self, *, graceful: bool) -> None:
        """End after the job; or tell at once that it is lost, and get it out of the way as far as we can."""
        await super().stop(graceful=graceful)
        with self._door:
            if not graceful and not self._left.is_set():
                self._limit.strike(SystemExit)

    def has_left(self, within_seconds: float) -> bool:
        """Wait for `serve_here` to return; False when it did not in time."""
        return self._left.wait(within_seconds)

    def leave(self) -> None:
        """Let `serve_here` return although the pool was never started; may be called at any time."""
        self._offered.put(None)

    def free(self, *, short: bool = False) -> int:
        """Return how many more jobs may be handed over: none while one is past its hard limit."""
        seat = self._seats[0] if self._seats else None
        if seat is not None and seat.number != NOBODY and seat.number not in self._jobs:
            return 0
        return super().free(short=short)

    def make_limit(self) -> SeatLimit:
        """Return what strikes the thread that serves."""
        return self._limit

    def occupy(self, seat: Seat) -> None:
        """Offer the seat to the thread that serves."""
        self._offered.put(seat)

    def await_item(self, queue: SimpleQueue[T]) -> T:
        """Wait for what comes next, and heed signals meanwhile."""
        while True:
            with suppress(Empty):
                return queue.get(timeout=_HEED_SECONDS)

    def overrun(self, seat: Seat, job: Job) -> None:
        """Get the job out of the way, as far as Python can; and see whether that has helped."""
        seat.limit.strike(TimeLimitExceeded)
        self._see_whether_it_ends(seat, job)

    def kill(self, number: int, signum: int) -> bool:
        """Raise ``SystemExit`` in a job. From SIGKILL it does not get away, where a worker can begin anew."""
        seat = self._seats[0] if self._seats else None
        job = self._jobs.get(number)
        if not super().kill(number, signum):
            return False
        if signum == signal.SIGKILL and seat is not None and job is not None:
            self._see_whether_it_ends(seat, job)
        return True

    def _see_whether_it_ends(self, seat: Seat, job: Job) -> None:
        if self._loop is not None:
            self._loop.call_later(_GRACE_SECONDS, self._on_obstinate, seat, job)

    def _on_obstinate(self, seat: Seat, job: Job) -> None:
        if seat.number != job.number or self._left.is_set():
            return
        if self.on_stuck is None:
            logger.error("Task %s[%s] does not end; until it does, nothing else can run.", job.task, job.id)
            return
        logger.error("Task %s[%s] does not end; the worker begins anew.", job.task, job.id)
        self.on_stuck()

    def _serve(self, seat: Seat) -> None:
        seat.runner.begin()
        try:
            self.serve(seat)
        finally:
            seat.runner.end(0)
