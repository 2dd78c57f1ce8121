"""Seats: threads of the node's own process in which jobs run. What the threads and solo pools share."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from celeriac.message import Finished, Job, Lost, Report, Started
from celeriac.pools.base import PoolOptions, Runner, exit_code, exit_text, tell_hard_limit, tell_soft_limit
from celeriac.pools.limits import SeatLimit, ThreadLimit

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("celery.pool")

WINDOW = 16  # short jobs per seat that may wait
LOOK_SECONDS = 0.005  # how often the seats are looked at while somebody's start is of interest
NOBODY = 0


class Seat:
    """One thread, what it runs, and what strikes it at the soft limit.

    Args:
        runner: Runs its jobs.
        limit: Raises in its thread.
    """

    def __init__(self, runner: Runner, limit: SeatLimit) -> None:
        self.runner = runner
        self.limit = limit
        self.number: int = NOBODY  # the job it runs; written by its thread
        self.started: float = 0.0
        self.seen = NOBODY  # the job whose start was told; written by the loop, as is the rest
        self.abandoned = False  # out of the pool: it is past a hard limit and ends when its job does
        self.timers: list[asyncio.TimerHandle] = []

    def take(self, job: Job) -> bool:
        """Say that a job begins; False when it must not, for the seat has been given up.

        First it is said, then the flag is looked at; who gives up the seat does it the other way round. So a
        job that is handed back for not having begun does not begin here after that.
        """
        self.limit.due = None  # what came too late for the one before
        self.started = time.time()
        self.number = job.number
        return not self.abandoned

    def disarm(self) -> None:
        """Forget the limits of the job that was running."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


class SeatPool:
    """Runs jobs on seats, all of which take them from one queue.

    A `SimpleQueue` costs 0.2 µs an item where a ThreadPoolExecutor costs 20.

    Args:
        options: How many seats.
        make_runner: Called for each seat.
    """

    kind = "threads"

    def __init__(self, options: PoolOptions, make_runner: Callable[[], Runner]) -> None:
        self.size: int = options.size
        self._make_runner = make_runner
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._seats: list[Seat] = []
        self._jobs: dict[int, Job] = {}  # given and not reported
        self._out: deque[Finished | Lost] = deque()  # said by the seats, not yet seen by the loop
        self._flush_due = False
        self._deliver: Callable[[Sequence[Report]], None] = lambda batch: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._look_timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()  # a seat has ended
        self._stopping = False

    # --- the port ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Nothing has to happen before there are threads."""

    async def start(self, deliver: Callable[[Sequence[Report]], None]) -> None:
        """Fill the seats."""
        if self._loop is not None:
            return
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        for _ in range(self.size):
            self.add_seat()

    def resize(self, size: int) -> None:
        """Have another number of seats."""
        for _ in range(self.size, size):
            self.add_seat()
        for _ in range(size, self.size):
            self._queue.put(None)  # the seat that takes it ends
        self.size = size

    def restart(self) -> None:
        """Refuse: there are no processes.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"The {self.kind} pool has no processes that could be replaced.")

    async def broken(self) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()

    async def stop(self, *, graceful: bool) -> None:
        """End the seats after their jobs; or tell at once that what runs is lost, and wait for nobody."""
        if self._loop is None:
            return
        self._stopping = True
        for _ in self._seats:
            self._queue.put(None)
        while graceful and self._seats:
            self._changed.clear()
            await self._changed.wait()
        self._flush()
        self._give_up()
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        self._loop = None

    def free(self, *, short: bool = False) -> int:
        """Return how many more jobs of a kind may be handed over."""
        if self._stopping or self._loop is None:
            return 0
        return max(0, len(self._seats) * (WINDOW if short else 1) - len(self._jobs))

    def submit(self, batch: Sequence[Job]) -> None:
        """Hand over jobs."""
        for job in batch:
            self._jobs[job.number] = job
            self._queue.put(job)
        self._look_soon()

    def recall(self) -> list[int]:
        """Take back what no seat has taken."""
        numbers: list[int] = []
        while True:
            try:
                job = self._queue.get_nowait()
            except Empty:
                return numbers
            if job is not None and self._jobs.pop(job.number, None) is not None:
                numbers.append(job.number)

    def kill(self, number: int, signal: int) -> bool:
        """Raise ``SystemExit`` in a job, as soon as Python runs in its thread; whatever the signal."""
        for seat in self._seats:
            if seat.number == number and number in self._jobs:
                seat.limit.strike(SystemExit)
                return True
        return False

    def running(self) -> Sequence[Started]:
        """Return what is being run."""
        return [self._started(seat) for seat in self._seats if seat.number in self._jobs]

    def pids(self) -> Sequence[int]:
        """Return nothing: there are no processes."""
        return ()

    # --- in the seat's thread ------------------------------------------------------------------------

    def serve(self, seat: Seat) -> None:
        """Run jobs in this thread until the pool ends."""
        while not seat.abandoned and (job := self.await_item(self._queue)) is not None and seat.take(job):
            report = self._run(seat, job)
            seat.number = NOBODY
            self._out.append(report)
            # First append, then look at the flag; `_flush` does it the other way round, so none is missed.
            if not self._flush_due:
                self._flush_due = True
                self._call_loop(self._flush)
        seat.runner.close()
        self._call_loop(lambda: self._on_end(seat))

    def await_item(self, queue: SimpleQueue[T]) -> T:
        """Wait for what comes next; a pool whose seat has something else to hear overrides it."""
        return queue.get()

    def _run(self, seat: Seat, job: Job) -> Finished | Lost:
        limit = seat.limit  # also of a job without limits: somebody may want to end it
        limit.seconds = math.inf if job.soft_limit_seconds is None else job.soft_limit_seconds
        try:
            report = seat.runner.run(job, limit)
        except SystemExit as exc:
            return self._lost(job, exit_code(exc))
        except BaseException:  # what is no Exception would end a process; here it ends the job
            logger.critical("Job %s (%s) escaped from its seat", job.number, job.task, exc_info=True)
            return self._lost(job, 1)
        report.started_at = seat.started
        report.pid = os.getpid()
        return report

    def _lost(self, job: Job, status: int) -> Lost:
        return Lost(number=job.number, started=True, reason=exit_text(status, job.number), pid=os.getpid())

    def _call_loop(self, function: Callable[[], None]) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
                loop.call_soon_threadsafe(function)

    # --- on the loop ---------------------------------------------------------------------------------

    def add_seat(self) -> None:
        """Fill one more seat."""
        seat = Seat(self._make_runner(), self.make_limit())
        self._seats.append(seat)
        self.occupy(seat)

    def make_limit(self) -> SeatLimit:
        """Return what strikes a seat."""
        return ThreadLimit()

    def occupy(self, seat: Seat) -> None:
        """Have `serve` run for the seat in a thread of its own."""
        raise NotImplementedError

    def _on_end(self, seat: Seat) -> None:
        if seat in self._seats:
            self._seats.remove(seat)
        self._changed.set()

    def _flush(self) -> None:
        self._flush_due = False
        reports: list[Report] = []
        while self._out:
            report = self._out.popleft()
            if self._jobs.pop(report.number, None) is not None:  # not one that was given up before
                reports.append(report)
        for seat in self._seats:
            if seat.timers and seat.seen not in self._jobs:
                seat.disarm()
        self._deliver(reports)

    def _give_up(self) -> None:
        for seat in self._seats:
            seat.abandoned = True
            seat.disarm()
        running = {seat.number for seat in self._seats}
        reports = [
            Lost(
                number=job.number,
                started=job.number in running,
                reason=f"The worker was shut down. Job: {job.number}.",
                stopped=True,
                pid=os.getpid(),
            )
            for job in self._jobs.values()
        ]
        self._jobs.clear()
        if reports:
            self._deliver(reports)

    def _look_soon(self) -> None:
        if self._look_timer is None and self._loop is not None:
            self._look_timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._look_timer = None
        reports: list[Report] = []
        now = time.time()
        for seat in self._seats:
            job = self._jobs.get(seat.number)
            if job is None or seat.seen == job.number:
                continue
            running_for = now - seat.started
            # Less than nothing: the system's clock was set back, and says nothing of how long it has run.
            if not job.short or not 0 <= running_for < LOOK_SECONDS:
                seat.seen = job.number
                reports.append(self._started(seat))
                self._arm(seat, job, max(running_for, 0.0))
        if len(self._jobs) > sum(seat.seen in self._jobs for seat in self._seats):
            self._look_soon()
        if reports:
            self._deliver(reports)

    def _started(self, seat: Seat) -> Started:
        return Started(number=seat.number, pid=os.getpid(), at=seat.started)

    # --- time limits -----------------------------------------------------------------------------------

    def _arm(self, seat: Seat, job: Job, running_for: float) -> None:
        assert self._loop is not None
        seat.disarm()
        soft, hard = job.soft_limit_seconds, job.hard_limit_seconds
        if soft is not None:
            delay = max(0.0, soft - running_for)
            seat.timers.append(self._loop.call_later(delay, self._on_soft_limit, seat, job))
        if hard is not None:
            delay = max(0.0, hard - running_for)
            seat.timers.append(self._loop.call_later(delay, self._on_hard_limit, seat, job))

    def _on_soft_limit(self, seat: Seat, job: Job) -> None:
        if seat.number == job.number:
            tell_soft_limit(job)
            seat.limit.expire()

    def _on_hard_limit(self, seat: Seat, job: Job) -> None:
        if seat.number == job.number and self._jobs.pop(job.number, None) is not None:
            tell_hard_limit(job)
            self.overrun(seat, job)
            self._deliver(
                [
                    Lost(
                        number=job.number,
                        started=True,
                        reason=f"Hard time limit exceeded. Job: {job.number}.",
                        limit_seconds=job.hard_limit_seconds,
                        pid=os.getpid(),
                    )
                ]
            )

    def overrun(self, seat: Seat, job: Job) -> None:
        """Make the slot of a job free that is past its hard limit and has been reported."""
        raise NotImplementedError
