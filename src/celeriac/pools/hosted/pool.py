"""The node's side of the pools whose slots share one process: asyncio, gevent, eventlet."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence

from celeriac.message import Job, Lost, Report, Started
from celeriac.pools.base import PoolOptions, exit_name, exit_text, tell_hard_limit, tell_soft_limit
from celeriac.pools.hosted.line import Answer, Heard, Order, Ready
from celeriac.pools.hosted.member import Member
from celeriac.pools.prefork.forker import ChildMain, Died, Forked, Forker, ForkerGone, await_ends

logger: logging.Logger = logging.getLogger("celery.pool")

# The host watches soft limits itself. When its loop is blocked it cannot, and is interrupted by a signal.
_NUDGE_SECONDS = 0.1
_GRACE_SECONDS = 0.8  # for a job to end that was told to; its slot is free a second after its limit
_SILENT_SECONDS = 2.0  # then a host is killed that hears nothing: with too much to do it is slow, not blocked
_FIRST_PAUSE_SECONDS = 1.0  # before a host is made again that died while it started
_MOST_PAUSE_SECONDS = 30.0
_END_SECONDS = 30.0  # for a host that was told to end
_PROGRAM_FACTOR = 8  # how much longer a host may take that is begun as a program
_KILLED_SECONDS = 1.0  # for hosts to end that the kernel is killing


class HostedPool:
    """One process with many slots, `celeriac.ports.Pool`.

    1. have the forker make the host, and make it again when it dies
    2. give it jobs, as many at once as there are slots
    3. watch the time limits: the host ends a job that is past its hard limit, or it is renewed
    4. renew it without harm where that is possible: as long as it answers, the jobs that run in it end in it,
       while new ones go to its successor already; only when nothing moves in it any more it is killed
    5. account for the dead: what it had read is lost, what it had not runs elsewhere, nothing runs twice

    Args:
        kind: Its name.
        options: How many slots.
        main: What the forker runs in a new host.
    """

    def __init__(self, kind: str, options: PoolOptions, main: ChildMain) -> None:
        self.kind: str = kind
        self.size: int = options.size
        self._options = options
        self._forker = Forker(main)
        # A program of its own has everything to load that a forked one has from its parent.
        self._patience = options.start_timeout_seconds * (_PROGRAM_FACTOR if options.program else 1)
        self._hosts: dict[int, Member] = {}
        self._current: Member | None = None  # the one that gets jobs
        self._waiting: deque[Job] = deque()
        self._deliver: Callable[[Sequence[Report]], None] = lambda batch: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()  # a host became ready or died
        self._made = 0
        self._failures = 0  # hosts in a row that died before they were ready
        self._opened = False
        self._stopping = False
        self._killing = False
        self._broken = asyncio.Event()

    # --- life ----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Fork the forker; there must be no loop, thread or connection yet."""
        if not self._opened:
            self._opened = True
            self._forker.launch()

    async def start(self, deliver: Callable[[Sequence[Report]], None]) -> None:
        """Make the host and wait until it is ready, within reason."""
        if self._loop is not None:
            return
        self.open()
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._forker.fileno(), self._on_notices)
        self._make()
        seconds = self._patience
        await self._until(lambda: self._current is not None and self._current.ready, seconds)
        if self._current is None or not self._current.ready:
            logger.warning("The pool's process was not ready after %g seconds; going on.", seconds)

    def resize(self, size: int) -> None:
        """Have another number of slots."""
        self.size = size
        self._place()

    def restart(self) -> None:
        """Replace the host by a fresh one; what runs in the old one ends there."""
        if self._current is not None:
            self._renew(self._current)

    async def broken(self) -> None:
        """Return when the forker has died: nobody can make hosts any more."""
        await self._broken.wait()

    async def stop(self, *, graceful: bool) -> None:
        """End the hosts: after the jobs they have, or at once; then the forker."""
        if self._loop is None:
            self._forker.close()
            return
        self._stopping = True
        if graceful:
            for host in list(self._hosts.values()):
                self._retire(host)
            await self._until(lambda: not self._hosts, None)
        else:
            self._killing = True
        if not self._broken.is_set():
            self._loop.remove_reader(self._forker.fileno())
        self._forker.close()
        for index in list(self._hosts):
            self._bury(index, -signal.SIGKILL)
        self._give_up_waiting()
        self._loop = None

    # --- jobs ----------------------------------------------------------------------------------------

    def free(self, *, short: bool = False) -> int:
        """Return how many more jobs can be placed now; short ones are no different here."""
        host = self._current
        if host is None or not host.ready or self._stopping:
            return 0
        return max(0, self.size - len(self._waiting) - sum(len(each.jobs) for each in self._hosts.values()))

    def submit(self, batch: Sequence[Job]) -> None:
        """Place jobs."""
        self._waiting.extend(batch)
        self._place()

    def recall(self) -> list[int]:
        """Take back what the host was not given yet; what it was it begins at once."""
        numbers = [job.number for job in self._waiting]
        self._waiting.clear()
        return numbers

    def kill(self, number: int, signal: int) -> bool:
        """Have a job ended: `asyncio.CancelledError`, or its like, is raised where it waits.

        Of SIGKILL it does not get away: the host is renewed if the job does not end.
        """
        for host in self._hosts.values():
            if number in host.jobs:
                self._condemn(host, number, None, signal)
                return True
        return False

    def running(self) -> Sequence[Started]:
        """Return what is being run."""
        return [started for host in self._hosts.values() for started in host.started.values()]

    def pids(self) -> Sequence[int]:
        """Return the hosts' processes."""
        return [host.pid for host in self._hosts.values() if host.pid]

    def _place(self) -> None:
        """Give what waits to the host, as far as its socket takes it."""
        host = self._current
        while self._waiting and host is not None and host.ready:
            job = self._waiting[0]
            try:
                host.line.give(job)
            except BlockingIOError:
                assert self._loop is not None
                self._loop.add_writer(host.line.near, self._on_room, host)
                return
            self._waiting.popleft()
            host.jobs[job.number] = job
            host.taken += 1
            most = self._options.max_tasks_per_child
            if most is not None and host.taken >= most:
                self._renew(host)
                return  # the others wait for its successor

    def _on_room(self, host: Member) -> None:
        assert self._loop is not None
        self._loop.remove_writer(host.line.near)
        self._place()

    # --- what the host says --------------------------------------------------------------------------

    def _on_answers(self, host: Member) -> None:
        reports: list[Report] = []
        while (answer := host.line.read()) is not None:
            self._take(host, answer, reports)
        if host.retiring:
            self._retire(host)
        self._place()
        self._deliver(reports)  # none as well: there is room when a new host is ready

    def _take(self, host: Member, answer: Answer, reports: list[Report]) -> None:
        if isinstance(answer, Heard):
            host.heard.add(answer.number)
        elif isinstance(answer, Ready):
            host.ready = True
            host.expect(None)
            self._failures = 0
            self._changed.set()
        else:
            for report in answer:
                self._account(host, report, reports)

    def _account(self, host: Member, report: Report, reports: list[Report]) -> None:
        job = host.jobs.get(report.number)
        if job is None:
            if report.number in host.condemned and not isinstance(report, Started):
                host.stuck = False  # it has ended after all
            return
        report.pid = host.pid
        if isinstance(report, Started):
            host.started[report.number] = report
            self._arm(host, job, report)
            reports.append(report)
            return
        started, soft = host.started.get(job.number), job.soft_limit_seconds
        if started is not None and soft is not None and time.time() - started.at >= soft:
            self._tell_soft_limit(host, job)
        host.forget(report.number)
        limit = host.condemned.pop(report.number, None)
        reports.append(report if limit is None else self._overrun(host, job, limit))

    def _overrun(self, host: Member, job: Job, limit: float) -> Lost:
        reason = f"Hard time limit exceeded. Job: {job.number}."
        return Lost(number=job.number, started=True, reason=reason, limit_seconds=limit, pid=host.pid)

    # --- time limits ---------------------------------------------------------------------------------

    def _arm(self, host: Member, job: Job, started: Started) -> None:
        assert self._loop is not None
        soft, hard = job.soft_limit_seconds, job.hard_limit_seconds
        # Less than nothing: the system's clock was set back, and says nothing of how long it has run.
        ran = max(0.0, time.time() - started.at)
        timers = host.timers.setdefault(job.number, []) if soft is not None or hard is not None else []
        if soft is not None:
            late = max(0.0, soft - ran) + _NUDGE_SECONDS
            timers.append(self._loop.call_later(late, self._on_late, host, job))
        if hard is not None:
            timers.append(self._loop.call_later(max(0.0, hard - ran), self._on_hard_limit, host, job))

    def _on_late(self, host: Member, job: Job) -> None:
        """Interrupt a host whose job is past its soft limit and has not ended for it."""
        self._tell_soft_limit(host, job)
        self._forker.kill(host.index, host.pid, signal.SIGUSR1)

    def _tell_soft_limit(self, host: Member, job: Job) -> None:
        if job.number not in host.told:
            host.told.add(job.number)
            tell_soft_limit(job)

    def _on_hard_limit(self, host: Member, job: Job) -> None:
        tell_hard_limit(job)
        self._condemn(host, job.number, job.hard_limit_seconds, signal.SIGKILL)

    def _condemn(self, host: Member, number: int, limit: float | None, signum: int) -> None:
        """Tell the host to end a job, and see whether it does."""
        assert self._loop is not None
        host.condemned[number] = limit if limit is not None else host.condemned.get(number)
        host.heard.discard(number)
        try:
            host.line.order(Order(number, signum))
        except BlockingIOError:
            logger.warning("Process %r pid:%s does not read what it is told.", host.name, host.pid)
        if signum == signal.SIGKILL:
            self._forker.kill(host.index, host.pid, signal.SIGUSR1)  # should it be this one that blocks it
            timer = self._loop.call_later(_GRACE_SECONDS, self._on_obstinate, host, number)
            host.timers.setdefault(number, []).append(timer)

    def _on_obstinate(self, host: Member, number: int) -> None:
        """Account for a job that does not end, and have another host take the jobs from now on."""
        assert self._loop is not None
        job = host.jobs[number]
        logger.error(
            "Task %s[%s] does not end; process %r pid:%s is renewed. Its other %s jobs end there first.",
            job.task,
            job.id,
            host.name,
            host.pid,
            len(host.jobs) - 1,
        )
        host.stuck = True
        limit = host.condemned[number]
        host.forget(number)
        reason = f"It was told to end and does not. Job: {number}."
        lost = Lost(number=number, started=True, reason=reason, pid=host.pid)
        self._loop.call_later(_SILENT_SECONDS - _GRACE_SECONDS, self._on_silent, host, number)
        self._renew(host)
        self._deliver([lost if limit is None else self._overrun(host, job, limit)])

    def _on_silent(self, host: Member, number: int) -> None:
        """Kill a host that one job keeps from hearing anything; what else runs in it could not go on."""
        if number in host.heard or host.doomed or host.index not in self._hosts:
            return
        logger.error(
            "Process %r pid:%s is blocked; it is killed, with the %s jobs in it.",
            host.name,
            host.pid,
            len(host.jobs),
        )
        host.doomed = True
        self._forker.kill(host.index, host.pid, signal.SIGKILL)

    # --- hosts ---------------------------------------------------------------------------------------

    def _make(self) -> None:
        if self._stopping or self._broken.is_set() or self._loop is None or self._current is not None:
            return
        self._options.before_fork()
        self._made += 1
        host = Member(self._made, f"{self._options.name}-{self._made}")
        self._hosts[host.index] = self._current = host
        self._loop.add_reader(host.line.near, self._on_answers, host)
        try:
            self._forker.fork(host.index, host.name, host.line.far)
        except ForkerGone:
            self._on_forker_gone()
            return
        # Longer with each failure: it may have much to prepare, and hanging looks the same.
        patience = self._patience * 2**self._failures
        host.expect(self._loop.call_later(patience, self._on_never_ready, host, patience))

    def _on_never_ready(self, host: Member, patience: float) -> None:
        if host.pid:
            logger.error(
                "Timed out waiting for UP message from %r pid:%s after %g seconds "
                "(worker_proc_alive_timeout): it is killed and made again, with twice the time.",
                host.name,
                host.pid,
                patience,
            )
            self._forker.kill(host.index, host.pid, signal.SIGKILL)

    def _renew(self, host: Member) -> None:
        """Have another host take the jobs from now on."""
        if host is self._current:
            assert self._loop is not None
            self._loop.remove_writer(host.line.near)
            self._current = None
            self._make()
        self._retire(host)

    def _retire(self, host: Member) -> None:
        """Let a host end as soon as nothing runs in it."""
        host.retiring = True
        if host.jobs or host.stop_sent or host.doomed or not host.pid:
            return
        if host.stuck or not host.ready:
            host.doomed = True
            self._forker.kill(host.index, host.pid, signal.SIGKILL)
            return
        host.stop_sent = True
        host.line.stop()
        assert self._loop is not None
        host.expect(self._loop.call_later(_END_SECONDS, self._on_never_ended, host))

    def _on_never_ended(self, host: Member) -> None:
        logger.error("Process %r pid:%s does not end as it was told: it is killed.", host.name, host.pid)
        self._forker.kill(host.index, host.pid, signal.SIGKILL)

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
        host = self._hosts[notice.slot]
        host.pid = notice.pid
        if not notice.pid:
            logger.error("A process could not be forked: %s", notice.error)
            self._bury(notice.slot, 1)
        elif host.retiring:
            self._retire(host)

    def _bury(self, index: int, status: int) -> None:
        """Account for a dead host and have another one made."""
        host = self._hosts.pop(index)
        assert self._loop is not None
        self._loop.remove_reader(host.line.near)
        self._loop.remove_writer(host.line.near)
        reports: list[Report] = []
        # First everything that it could still say, then what it never saw, then what it had begun.
        while (answer := host.line.read()) is not None:
            self._take(host, answer, reports)
        unread = [job for number in host.line.take_back() if (job := host.forget(number)) is not None]
        reports.extend(self._loss(host, job, status) for job in host.jobs.values())
        host.disarm()
        host.line.close()
        if self._stopping:
            reports.extend(_never_started(job) for job in unread)
        else:
            self._waiting.extendleft(reversed(unread))
        self._tell_end(host, status)
        if self._current is host:
            self._current = None
            self._replace(host)
        self._changed.set()
        self._place()
        if reports:
            self._deliver(reports)

    def _loss(self, host: Member, job: Job, status: int) -> Lost:
        limit = host.condemned.get(job.number)
        if limit is not None:
            return self._overrun(host, job, limit)
        reason = exit_text(status, job.number)
        by_us = self._killing or (host.doomed and job.number not in host.condemned)
        return Lost(number=job.number, started=True, reason=reason, stopped=by_us, pid=host.pid)

    def _tell_end(self, host: Member, status: int) -> None:
        if self._killing or (host.retiring and (status == 0 or host.doomed)):
            logger.debug("Process %r pid:%s has ended as it should", host.name, host.pid)
        else:
            logger.error("Process %r pid:%s exited with %r", host.name, host.pid, exit_name(status))

    def _replace(self, host: Member) -> None:
        if self._stopping or self._loop is None:
            return
        if host.ready:
            self._make()
            return
        # It did not even get ready: the next one probably fails as well, so do not spin.
        pause = min(_FIRST_PAUSE_SECONDS * 2**self._failures, _MOST_PAUSE_SECONDS)
        self._failures += 1
        self._loop.call_later(pause, self._make)

    def _on_forker_gone(self) -> None:
        """Without the forker the kernel has killed the hosts, and there will be no others."""
        if self._broken.is_set() or self._loop is None:
            return
        self._broken.set()
        logger.critical("The process that forks the pool's host is gone, and the host with it.")
        self._loop.remove_reader(self._forker.fileno())
        await_ends(self.pids(), _KILLED_SECONDS)  # only then is it certain what they have begun
        self._current = None
        for index in list(self._hosts):
            self._bury(index, -signal.SIGKILL)
        self._give_up_waiting()

    def _give_up_waiting(self) -> None:
        jobs = list(self._waiting)
        self._waiting.clear()
        if jobs:
            self._deliver([_never_started(job) for job in jobs])

    async def _until(self, condition: Callable[[], bool], timeout_seconds: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return


def _never_started(job: Job) -> Lost:
    return Lost(number=job.number, started=False, reason="The worker is shutting down.")
