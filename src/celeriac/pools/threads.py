"""The threads pool."""

from __future__ import annotations

import threading
from collections.abc import Callable

from celeriac.message import Job
from celeriac.pools.base import PoolOptions, Runner
from celeriac.pools.seats import Seat, SeatPool


class ThreadPool(SeatPool):
    """Threads that run jobs, `celeriac.ports.Pool`.

    A thread cannot be killed: one that is past its hard limit is replaced. Its job sees ``SystemExit``, a
    coroutine its cancellation, as soon as Python runs there.

    Args:
        options: How many threads.
        make_runner: Called for each thread.
    """

    kind = "threads"

    def __init__(self, options: PoolOptions, make_runner: Callable[[], Runner]) -> None:
        super().__init__(options, make_runner)
        self._made = 0

    def occupy(self, seat: Seat) -> None:
        """Start a thread for the seat."""
        self._made += 1
        name = f"celeriac-thread-{self._made}"
        # A daemon: an interpreter that exits does not wait for a job that never ends.
        threading.Thread(target=self.serve, args=(seat,), name=name, daemon=True).start()

    def overrun(self, seat: Seat, job: Job) -> None:
        """Abandon the thread and put another one in its place."""
        seat.abandoned = True  # first: so whatever is struck, it is not the next job
        if seat.number == job.number:
            seat.limit.strike(SystemExit)
        self._seats.remove(seat)
        if not self._stopping:
            self.add_seat()
