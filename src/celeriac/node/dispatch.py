"""The dispatcher: the order in which work goes to the pool, and how much of it is fetched."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from celeriac.message import Job
from celeriac.node.readahead import ReadAhead
from celeriac.node.work import Work
from celeriac.ports import Pool


class Dispatcher:
    """Hands work to the pool, first come, first served.

    1. line up what was taken in
    2. submit as long as the pool has room: short tasks several to a slot, others only to idle slots
    3. take back what has not begun
    4. know how much may be outstanding (`ReadAhead`)

    Args:
        pool: Runs the work.
        hostname: The node's name.
        ahead: Says how many deliveries to hold.
        wanted: Asked before work is submitted that has a time to expire; it settles what it says no to.
        certain: Asked whether what waits is certainly ours; while it is not, nothing begins.
    """

    def __init__(
        self,
        pool: Pool,
        hostname: str,
        ahead: ReadAhead,
        wanted: Callable[[Work], bool],
        certain: Callable[[], bool],
    ) -> None:
        self._pool = pool
        self._hostname = hostname
        self._ahead = ahead
        self._wanted = wanted
        self._certain = certain
        self._line: deque[Work] = deque()
        self.in_pool: int = 0  # handed to the pool and not ended
        self.short_in_pool: int = 0  # of those, tasks that will end within milliseconds

    def add(self, work: Work) -> None:
        """Line up work."""
        self._line.append(work)

    def add_first(self, work: Work) -> None:
        """Put work at the head of the line."""
        self._line.appendleft(work)

    def waiting(self) -> int:
        """Return how much waits in line."""
        return len(self._line)

    def pump(self) -> None:
        """Submit what there is room for."""
        line, pool = self._line, self._pool
        while line:
            short = line[0].is_short
            room = pool.free(short=short)
            if room <= 0 or not self._certain():  # asked last, for it may ask the broker
                return
            jobs: list[Job] = []
            while len(jobs) < room and line and line[0].is_short == short:
                work = line.popleft()
                if work.headers.expires is None or self._wanted(work):
                    jobs.append(self._job(work, short))
            pool.submit(jobs)

    def ended(self, work: Work) -> None:
        """Note that the pool is done with a piece of work."""
        if work.submitted:
            work.submitted = False
            self.in_pool -= 1
            self.short_in_pool -= work.short

    def drop(self, work: Work) -> None:
        """Take work out of the line, if it is there."""
        with suppress(ValueError):
            self._line.remove(work)

    def take_back(self) -> list[Work]:
        """Empty the line and return what was in it."""
        works = list(self._line)
        self._line.clear()
        return works

    def note(self, runs: int, seconds: float) -> None:
        """Take into account how long a batch of runs took.

        Args:
            runs: How many.
            seconds: All of them together.
        """
        self._ahead.note(runs, seconds)

    @property
    def base(self) -> int:
        """How many deliveries are held when nothing is known or tasks take long; 0 = no limit."""
        return self._ahead.base

    def rebase(self, prefetch: int) -> None:
        """Change how many deliveries to hold when nothing is known or tasks take long; 0 = no limit."""
        self._ahead.rebase(prefetch)

    def prefetch(self) -> int:
        """Return how many deliveries may be outstanding now; 0 = no limit."""
        return self._ahead.deliveries(self._pool.size)

    @property
    def fetches_ahead(self) -> bool:
        """Whether many are fetched at a time, because tasks are that short."""
        return self._ahead.is_much(self._pool.size)

    def _job(self, work: Work, short: bool) -> Job:
        work.submitted = True
        work.short = short
        self.in_pool += 1
        self.short_in_pool += short
        return work.job(self._hostname)
