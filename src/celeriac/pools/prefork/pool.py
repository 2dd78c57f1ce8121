"""The parent's side of the prefork pool."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Sequence

from celeriac.message import Job, Lost, Report, Started
from celeriac.pools.base import PoolOptions, Runner, exit_name, exit_text
from celeriac.pools.prefork.board import READY, Board
from celeriac.pools.prefork.child import child_main
from celeriac.pools.prefork.forker import Died, Forked, Forker, ForkerGone, await_ends
from celeriac.pools.prefork.limit_watch import LimitWatch
from celeriac.pools.prefork.member import Member
from celeriac.pools.prefork.placement import Placement
from celeriac.pools.prefork.spawned import spawn_main

logger: logging.Logger = logging.getLogger("celery.pool")

SPARE_SLOTS = 64  # by which the pool may grow: what nobody uses costs no memory
LOOK_SECONDS = 0.005  # how often the board is read while somebody's start is of interest
_FIRST_PAUSE_SECONDS = 1.0  # before a child is made again that died while it started
_MOST_PAUSE_SECONDS = 30.0
_KILLED_SECONDS = 1.0  # for children to end that the kernel is killing
_END_SECONDS = 30.0  # for a child that was told to end; its slot is empty as long as it does not
# Looks, not seconds: a machine that was asleep has not given the child a chance either.
_DEAF_LOOKS = 20  # until others get what a child does not read
_DEAD_LOOKS = 1000  # until it is killed for it


class PreforkPool:
    """Processes that run jobs, `celeriac.ports.Pool`.

    1. have the forker make the children, and make them again when they die or have served their time
    2. have jobs placed (`placement`)
    3. take in reports, and look on the board for what nobody rings about: starts, stalled children
    4. recall what a stalled child has not read, for others, and share with idle ones; replace a child that
       reads nothing, does not get ready, or does not end when told to
    5. have the time limits watched (`limit_watch`)
    6. account for the dead: what ran is lost, what waited runs elsewhere, nothing runs twice

    Args:
        options: How many children, how long they live.
        make_runner: Called in each child for what runs its jobs.
    """

    kind = "prefork"

    def __init__(
        self,
        options: PoolOptions,
        make_runner: Callable[[], Runner],
    ) -> None:
        self.size: int = options.size
        self._options = options
        slots = max(options.size, options.most) + SPARE_SLOTS
        self._board = Board.shared(slots) if options.program else Board(slots)
        self._forker = Forker(
            spawn_main(self._board, options.program, self.kind)
            if options.program
            else child_main(self._board, make_runner, options)
        )
        self._children: list[Member | None] = [None] * options.size
        self._placement = Placement(
            self._children, options.size, options.max_tasks_per_child, self._look_soon
        )
        self._limits = LimitWatch(self._kill)
        self._deliver: Callable[[Sequence[Report]], None] = lambda batch: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._look_timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()  # a child became ready or died
        self._made = 0  # children ever made
        self._failures = 0  # children in a row that died before they were ready
        self._opened = False
        self._stopping = False
        self._killing = False
        self._broken = asyncio.Event()

    # --- life --------------------------------------------------------------------------------------

    def open(self) -> None:
        """Fork the forker; there must be no loop, thread or connection yet."""
        if not self._opened:
            self._opened = True
            self._forker.launch()

    async def start(self, deliver: Callable[[Sequence[Report]], None]) -> None:
        """Make the children and wait until they are ready, within reason."""
        if self._loop is not None:
            return
        self.open()
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._forker.fileno(), self._on_notices)
        for index in range(self.size):
            self._make(index)
        await self._until(self._all_ready, self._options.start_timeout_seconds)
        if not self._all_ready():
            logger.warning(
                "Not every child was ready after %.0f seconds; going on with those that are.",
                self._options.start_timeout_seconds,
            )

    def resize(self, size: int) -> None:
        """Have another number of children; those that go do so when their jobs have ended."""
        if size > self._board.slots:
            raise ValueError(f"This pool cannot have more than {self._board.slots} processes.")
        before, self.size = self.size, size
        self._children.extend([None] * (size - len(self._children)))
        self._placement.resize(size)
        for index in range(before, size):
            if self._children[index] is None:
                self._make(index)
        for child in self._children[size:]:
            if child is not None:
                self._placement.take_back(child)
                self._retire(child)
        self._placement.place()

    def restart(self) -> None:
        """Replace every child by a fresh one, as soon as its job has ended."""
        for child in self._alive():
            self._placement.take_back(child)
            self._retire(child)

    async def broken(self) -> None:
        """Return when the forker has died: nobody can make children any more."""
        await self._broken.wait()

    async def stop(self, *, graceful: bool) -> None:
        """End the children: after the jobs they have, or at once; then the forker."""
        if self._loop is None:
            self._forker.close()
            return
        self._stopping = True
        if graceful:
            for child in self._alive():
                self._retire(child)
            await self._until(lambda: not self._alive(), None)
        else:
            self._killing = True
        if not self._broken.is_set():
            self._loop.remove_reader(self._forker.fileno())
        self._forker.close()
        for child in self._alive():
            self._bury(child.index, -signal.SIGKILL)
        self._tell_never_started(self._placement.close())
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        self._loop = None

    # --- jobs --------------------------------------------------------------------------------------

    def free(self, *, short: bool = False) -> int:
        """Return how many more jobs of a kind can be placed now."""
        return self._placement.free(short=short)

    def submit(self, batch: Sequence[Job]) -> None:
        """Place jobs."""
        self._placement.waiting.extend(batch)
        self._placement.place()

    def recall(self) -> list[int]:
        """Take back what the children have not read."""
        return [job.number for job in self._placement.recall()]

    def kill(self, number: int, signal: int) -> bool:
        """Signal the child that runs a job."""
        for child in self._alive():
            if number in child.jobs and child.slot.job == number:
                self._kill(child, signal)
                return True
        return False

    def running(self) -> Sequence[Started]:
        """Read from the board what is being run."""
        return [
            Started(number=child.slot.job, pid=child.pid, at=child.slot.started)
            for child in self._alive()
            if child.slot.job in child.jobs
        ]

    def pids(self) -> Sequence[int]:
        """Return the children's processes."""
        return [child.pid for child in self._alive() if child.pid]

    # --- reports -----------------------------------------------------------------------------------

    def _on_datagram(self, child: Member) -> None:
        message = child.inbox.read()
        if message is None:
            return
        tail, long_report = message
        reports: list[Report] = []
        child.collect(child.slot.take(tail) if long_report is None else (long_report,), reports)
        if not child.ready and child.slot.phase == READY:
            child.ready = True
            child.expect(None)
            child.pid = child.slot.pid  # the forker's notice may come after the child's own
            self._failures = 0
            self._changed.set()
        self._retire_if_due(child)
        self._placement.place()
        self._deliver(reports)

    def _retire_if_due(self, child: Member) -> None:
        limit = self._options.max_memory_per_child_kib
        if limit is not None and child.slot.memory_kib > limit and not child.retiring:
            child.retiring = True
            self._placement.take_back(child)
        # One that has been given its number of jobs may have to give some back, and then has time for others.
        if child.retiring or (self._placement.spent(child) and not child.jobs):
            self._retire(child)

    # --- looking at the board ------------------------------------------------------------------------

    def _look_soon(self) -> None:
        if self._look_timer is None and self._loop is not None:
            self._look_timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """See what nobody rings about; goes on as long as there is something to see."""
        self._look_timer = None
        reports: list[Report] = []
        again = False
        now = time.time()
        for child in self._children:
            if child is None or not (child.jobs or child.deaf):
                continue
            job = child.jobs.get(child.slot.job)
            if job is not None:
                child.silent_looks, child.deaf = 0, False
                self._look_at(child, job, now, reports)
                self._retire_if_due(child)
            else:
                self._listen_for(child)
            again = again or child.deaf or len(child.jobs) > 1 or child.started not in child.jobs
        self._placement.share_out()
        if again:
            self._look_soon()
        if reports:
            self._deliver(reports)

    def _listen_for(self, child: Member) -> None:
        """See to a child that was given jobs and has begun none: it may be stopped, or stuck between two."""
        if child.deaf and not child.inbox.unread():
            child.silent_looks, child.deaf = 0, False
            return
        child.silent_looks += 1
        if child.silent_looks == _DEAF_LOOKS:
            child.deaf = self._placement.take_back(child)  # if there is nothing, it has just read it
            if child.deaf:
                child.inbox.probe()
        elif child.silent_looks == _DEAD_LOOKS:
            logger.error(
                "Process %r pid:%s takes no jobs; it is killed and replaced, others have what it was given.",
                child.name,
                child.pid,
            )
            self._kill(child, signal.SIGKILL)

    def _look_at(self, child: Member, job: Job, now: float, reports: list[Report]) -> None:
        running_for = now - child.slot.started
        # Less than nothing: the system's clock was set back, and says nothing of how long it has run.
        if job.short and 0 <= running_for < LOOK_SECONDS:
            return
        if child.slot.waiting:
            # Reports of short jobs that were to be rung together, and then one of them takes long.
            child.collect(child.slot.take(), reports)
            if job.number not in child.jobs:
                return  # it has ended in the meantime
        if child.started != job.number:
            child.started = job.number
            reports.append(Started(number=job.number, pid=child.pid, at=child.slot.started))
            self._limits.arm(child, job, max(running_for, 0.0))
        if len(child.jobs) > 1:
            self._placement.take_back(child)
        child.slow = True  # whatever it was said to be: nobody shall wait behind it

    # --- children ----------------------------------------------------------------------------------

    def _kill(self, child: Member, signum: int) -> None:
        self._forker.kill(child.index, child.pid, signum)

    def _alive(self) -> list[Member]:
        return [child for child in self._children if child is not None]

    def _all_ready(self) -> bool:
        return all(child is not None and child.ready for child in self._children[: self.size])

    def _make(self, index: int) -> None:
        if self._stopping or self._broken.is_set() or self._loop is None:
            return
        if index >= self.size or self._children[index] is not None:
            return  # its place was given up since, or given to another
        self._options.before_fork()
        slot = self._board.slot(index)
        slot.reset()
        self._made += 1
        child = Member(index, slot, f"{self._options.name}-{self._made}")
        self._children[index] = child
        self._loop.add_reader(child.inbox.near.fileno(), self._on_datagram, child)
        try:
            self._forker.fork(index, child.name, child.inbox.far)
        except ForkerGone:
            self._on_forker_gone()
            return
        # Longer with each failure: it may have much to prepare, and hanging looks the same.
        patience = self._options.start_timeout_seconds * 2**self._failures
        child.expect(self._loop.call_later(patience, self._on_never_ready, child, patience))

    def _on_never_ready(self, child: Member, patience: float) -> None:
        if child.pid:
            logger.error(
                "Timed out waiting for UP message from %r pid:%s after %g seconds "
                "(worker_proc_alive_timeout): it is killed and made again, with twice the time.",
                child.name,
                child.pid,
                patience,
            )
            self._kill(child, signal.SIGKILL)

    def _on_never_ended(self, child: Member) -> None:
        if not self._stopping:
            logger.error(
                "Process %r pid:%s has not ended within %g seconds of being told to: it is killed.",
                child.name,
                child.pid,
                _END_SECONDS,
            )
            self._kill(child, signal.SIGKILL)

    def _retire(self, child: Member) -> None:
        """Let a child end as soon as it has nothing left to do."""
        child.retiring = True
        if not child.jobs and not child.stop_sent:
            child.stop_sent = True
            child.inbox.put_stop()
            assert self._loop is not None
            child.expect(self._loop.call_later(_END_SECONDS, self._on_never_ended, child))

    def _on_notices(self) -> None:
        try:
            notices = self._forker.notices()
        except ForkerGone:
            self._on_forker_gone()
            return
        for notice in notices:
            match notice:
                case Forked():
                    self._on_forked(notice)
                case Died():
                    self._bury(notice.slot, notice.status)

    def _on_forked(self, notice: Forked) -> None:
        child = self._children[notice.slot]
        assert child is not None
        child.pid = notice.pid
        if not notice.pid:
            logger.error("A child could not be forked: %s", notice.error)
            self._bury(notice.slot, 1)

    def _bury(self, index: int, status: int) -> None:
        """Account for a dead child and have another one made."""
        child = self._children[index]
        assert child is not None
        assert self._loop is not None
        self._loop.remove_reader(child.inbox.near.fileno())
        reports: list[Report] = []
        # First everything that it could still say, then what it had begun, then what it never saw.
        while (message := child.inbox.read()) is not None:
            if message[1] is not None:
                child.collect(child.slot.take(), reports)
                child.collect((message[1],), reports)
        child.collect(child.slot.take(), reports)
        reports.extend(self._losses(child, status))
        unstarted = [*child.jobs.values()]
        child.disarm()
        child.expect(None)
        child.inbox.close()
        self._children[index] = None
        if unstarted and self._stopping:
            reports.extend(self._never_started(job) for job in unstarted)
        else:
            self._placement.waiting.extend(unstarted)
        self._changed.set()
        self._replace(child, index, status)
        self._placement.place()
        self._deliver(reports)

    def _losses(self, child: Member, status: int) -> list[Report]:
        number = child.slot.job
        if child.forget(number) is None:
            return []
        limit = child.limit[1] if child.limit is not None and child.limit[0] == number else None
        reason = exit_text(status, number)
        return [
            Lost(
                number=number,
                started=True,
                reason=reason,
                limit_seconds=limit,
                stopped=self._killing,
                pid=child.pid,
            )
        ]

    def _never_started(self, job: Job) -> Lost:
        return Lost(number=job.number, started=False, reason="The worker is shutting down.")

    def _replace(self, child: Member, index: int, status: int) -> None:
        if self._stopping or self._loop is None:
            return
        if child.retiring and status == 0:
            logger.debug("Process %r pid:%s has ended as it should", child.name, child.pid)
        else:
            logger.error("Process %r pid:%s exited with %r", child.name, child.pid, exit_name(status))
        if child.ready:
            self._make(index)
            return
        # It did not even get ready: the next one probably fails as well, so do not spin.
        pause = min(_FIRST_PAUSE_SECONDS * 2**self._failures, _MOST_PAUSE_SECONDS)
        self._failures += 1
        self._loop.call_later(pause, self._make, index)

    def _on_forker_gone(self) -> None:
        """Without the forker the kernel has killed the children, and there will be no others."""
        if self._broken.is_set() or self._loop is None:
            return
        self._broken.set()
        logger.critical("The process that forks the pool's children is gone, and they with it.")
        self._loop.remove_reader(self._forker.fileno())
        await_ends(self.pids(), _KILLED_SECONDS)  # only then is it certain what they have begun
        for index, child in enumerate(self._children):
            if child is not None:
                self._bury(index, -signal.SIGKILL)
        self._tell_never_started(self._placement.give_up())

    def _tell_never_started(self, jobs: list[Job]) -> None:
        if jobs:
            self._deliver([self._never_started(job) for job in jobs])

    async def _until(self, condition: Callable[[], bool], timeout_seconds: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return
