"""Placement: which child gets which job."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from celeriac.message import Job
from celeriac.pools.prefork.inbox import INFLIGHT_BYTES
from celeriac.pools.prefork.member import Member

logger: logging.Logger = logging.getLogger("celery.pool")

WINDOW = 32  # short jobs in one inbox
_REFILL_AT = WINDOW // 2  # jobs left: one by one they would cost a wake-up each
_WORTH_TAKING = 4  # jobs behind each other while another child is idle
_RETRY_SECONDS = 0.5  # before a job is given again that could not be, for want of memory or descriptors


class Placement:
    """Gives jobs to children: any job to an idle one, short ones also behind other short ones.

    1. Keeps the jobs that wait for a child: as long as there are any, the pool takes no others.
    2. Gives idle children their share first, and has children take turns at that.
    3. Takes back what a child has not read, for others.

    Args:
        children: The pool's, by their places; None where there is none now.
        size: How many places count.
        most_per_child: Jobs that a child may be given in its life; None: any number.
        on_given: Called when a job was given.
    """

    def __init__(
        self,
        children: list[Member | None],
        size: int,
        most_per_child: int | None,
        on_given: Callable[[], None],
    ) -> None:
        self.waiting: deque[Job] = deque()  # also those that were taken from a child
        self._children = children
        self._size = size
        self._most_per_child = most_per_child
        self._on_given = on_given
        self._turn = 0  # whose turn it is to be given a short job
        self._retry_timer: asyncio.TimerHandle | None = None

    def resize(self, size: int) -> None:
        """Have another number of places count."""
        self._size = size

    def close(self) -> list[Job]:
        """Give nothing any more, and return what waits."""
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
        return self.give_up()

    # --- who has room --------------------------------------------------------------------------------

    def free(self, *, short: bool) -> int:
        """Return how many more jobs of a kind can be placed now."""
        if self.waiting:
            return 0
        if short:
            return sum(self._room(child) for child in self._children if child is not None)
        return sum(1 for child in self._children if child is not None and self._idle(child))

    def spent(self, child: Member) -> bool:
        """Return whether a child has been given all the jobs that it may have in its life."""
        most = self._most_per_child
        return most is not None and child.taken >= most

    def _idle(self, child: Member) -> bool:
        able = child.ready and not child.retiring and not child.deaf
        return able and not child.jobs and not self.spent(child)

    def _room(self, child: Member) -> int:
        """Return how many short jobs fit into a child's inbox."""
        if not child.ready or child.slow or child.retiring or child.deaf or not self._has_space(child):
            return 0
        if len(child.jobs) > _REFILL_AT:
            return 0
        room = WINDOW - len(child.jobs)
        if self._most_per_child is not None:
            room = min(room, self._most_per_child - child.taken)
        return room

    def _has_space(self, child: Member) -> bool:
        return child.bytes < INFLIGHT_BYTES

    # --- giving --------------------------------------------------------------------------------------

    def place(self) -> None:
        """Give the jobs that wait to children, as far as these have room."""
        waiting = self.waiting
        while waiting:
            short = waiting[0].short
            candidates = self._candidates(short=short)
            if not candidates:
                return
            # Idle ones first, to each its share in one go: it wakes up once for all of them.
            for position, (child, room) in enumerate(candidates):
                share = min(room, -(-len(waiting) // (len(candidates) - position)))
                while share > 0 and waiting and waiting[0].short == short and self._has_space(child):
                    share -= 1
                    job = waiting[0]
                    job.more = share > 0 and len(waiting) > 1 and waiting[1].short == short
                    if not self._give(child, job):
                        return  # when it has read some it reports, and we come back
                    waiting.popleft()

    def _candidates(self, *, short: bool) -> list[tuple[Member, int]]:
        """Return the children that can be given jobs of a kind and how many, in the order to be asked.

        They take turns at being the first, so that all are kept equally busy.
        """
        self._turn += 1
        idle: list[tuple[Member, int]] = []
        others: list[tuple[Member, int]] = []
        for step in range(self._size):
            child = self._children[(self._turn + step) % self._size]
            if child is None:
                continue
            if self._idle(child):
                idle.append((child, self._room(child) if short else 1))
            elif short and (room := self._room(child)) > 0:
                others.append((child, room))
        return idle + others

    def _give(self, child: Member, job: Job) -> bool:
        """Put a job into a child's inbox; False when it will have to be tried again."""
        try:
            size = child.inbox.put(job)
        except BlockingIOError:
            return False  # this machine's sockets have smaller buffers than usual
        except OSError as exc:
            self._retry_later(job, exc)
            return False
        child.jobs[job.number] = job
        child.sizes[job.number] = size
        child.bytes += size
        child.taken += 1
        child.slow = child.slow or not job.short
        self._on_given()
        return True

    def _retry_later(self, job: Job, exc: OSError) -> None:
        """Come back to a job that cannot be given to anybody: nobody who reports might remind us of it."""
        if self._retry_timer is None:
            logger.error("Job %s waits, for it cannot be given to a process: %s", job.number, exc)
            self._retry_timer = asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        self._retry_timer = None
        self.place()

    # --- taking back ---------------------------------------------------------------------------------

    def take_back(self, child: Member) -> bool:
        """Have what a child has not read wait for others; return whether that is anything."""
        jobs = self._recall_from(child)
        self.waiting.extend(jobs)
        return bool(jobs)

    def share_out(self) -> None:
        """Let an idle child have some of what lies before a busy one, and place what waits."""
        if not self.waiting:
            children = [child for child in self._children if child is not None]
            if any(self._idle(child) for child in children):
                for child in children:
                    if len(child.jobs) >= _WORTH_TAKING:
                        self.take_back(child)
        self.place()

    def recall(self) -> list[Job]:
        """Take back all that no child has read."""
        jobs = self.give_up()
        for child in self._children:
            if child is not None:
                jobs += self._recall_from(child)
        return jobs

    def give_up(self) -> list[Job]:
        """Return what waits, which does so no longer."""
        jobs = list(self.waiting)
        self.waiting.clear()
        return jobs

    def _recall_from(self, child: Member) -> list[Job]:
        if not child.jobs:
            return []  # nothing to find there but the word to stop
        jobs = [job for number in child.inbox.recall() if (job := child.forget(number)) is not None]
        child.taken -= len(jobs)
        return jobs
