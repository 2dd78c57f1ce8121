"""The limit watch: signals a child whose job is past a time limit."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from celeriac.message import Job
from celeriac.pools.base import tell_hard_limit, tell_soft_limit
from celeriac.pools.prefork.member import Member


class LimitWatch:
    """Watches the time limits of what runs: SIGUSR1 at the soft one, SIGKILL at the hard one.

    Its timers are kept by the member, which lets go of them when the job has ended.

    Args:
        kill: Signals a child.
    """

    def __init__(self, kill: Callable[[Member, int], None]) -> None:
        self._kill = kill

    def arm(self, child: Member, job: Job, running_for: float) -> None:
        """Watch a job, instead of the one before it.

        Args:
            child: Runs it.
            job: Has begun.
            running_for: Since so many seconds.
        """
        child.disarm()
        loop = asyncio.get_running_loop()
        soft, hard = job.soft_limit_seconds, job.hard_limit_seconds
        if soft is not None:
            child.timers.append(
                loop.call_later(max(0.0, soft - running_for), self._on_soft_limit, child, job.number)
            )
        if hard is not None:
            child.timers.append(
                loop.call_later(max(0.0, hard - running_for), self._on_hard_limit, child, job)
            )

    def _on_soft_limit(self, child: Member, number: int) -> None:
        if child.slot.job == number and number in child.jobs:
            tell_soft_limit(child.jobs[number])
            self._kill(child, signal.SIGUSR1)

    def _on_hard_limit(self, child: Member, job: Job) -> None:
        if child.slot.job == job.number and job.number in child.jobs:
            tell_hard_limit(job)
            child.limit = (job.number, job.hard_limit_seconds or 0.0)
            self._kill(child, signal.SIGKILL)
