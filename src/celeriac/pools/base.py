"""What pools have in common: whom they run jobs with, and how a lost job is told."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from typing import Protocol

import msgspec

from celeriac.message import Finished, Job
from celeriac.pools.limits import SoftLimit

logger: logging.Logger = logging.getLogger("celery.worker.request")


def nothing(*args: object, **facts: object) -> None:
    """Do nothing."""


class PoolOptions(msgspec.Struct, kw_only=True, frozen=True):
    """How many slots a pool has, and what concerns children, where there are any."""

    size: int
    most: int = 0  # slots that it is going to have at most, if that is known
    max_tasks_per_child: int | None = None
    max_memory_per_child_kib: int | None = None
    start_timeout_seconds: float = 4.0  # how long `start` waits for the children
    name: str = "ForkPoolWorker"  # of the children, with a number behind it
    before_fork: Callable[[], object] = nothing  # called before each child is asked for
    program: tuple[str, ...] = ()  # the command line that a child begins with; empty: it is forked
    in_child: Callable[[int], None] = nothing  # the first call in each child; its place in the pool, from 1
    tell: Callable[..., object] = nothing  # called by a host of greenlets at moments that programs listen for


class Runner(Protocol):
    """Runs jobs, one at a time for each slot; the executor is one, tests have simpler ones."""

    def begin(self) -> None:
        """Prepare the process that is going to run jobs (called in it, once)."""
        ...

    def run(self, job: Job, limit: SoftLimit | None) -> Finished:
        """Run a job to its end.

        ``SystemExit`` and what else is no ``Exception`` means that the process is lost.

        Args:
            job: What to run.
            limit: To be entered around the user's code, when the job has a soft time limit.
        """
        ...

    def end(self, exitcode: int) -> None:
        """Say good-bye before the process ends (not called when it is killed)."""
        ...

    def close(self) -> None:
        """Let go of what was opened for running jobs; the last call, in the thread that ran them."""
        ...


def exit_text(status: int, number: int | None = None) -> str:
    """Say how a child ended, in the words that people's tools look for.

    Args:
        status: As `os.waitstatus_to_exitcode` has it: negative for a signal.
        number: The job that it was running.
    """
    job = "" if number is None else f" Job: {number}."
    return f"Worker exited prematurely: {exit_name(status)}{job}"


def exit_name(status: int) -> str:
    """Return ``signal 9 (SIGKILL)`` or ``exitcode 1``."""
    if status >= 0:
        return f"exitcode {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    return f"signal {-status} ({name})"


def exit_code(exc: SystemExit) -> int:
    """Return the exit code that Python would give a process that ends with it."""
    if exc.code is None:
        return 0
    if isinstance(exc.code, int):
        return exc.code & 0xFF
    sys.stderr.write(f"{exc.code}\n")
    return 1


def tell_soft_limit(job: Job) -> None:
    """Log that a job is past its soft limit."""
    facts = {"seconds": _plain(job.soft_limit_seconds), "name": job.task, "id": job.id}
    logger.warning(
        "Soft time limit (%(seconds)ss) exceeded for %(name)s[%(id)s]", facts, extra={"data": facts}
    )


def tell_hard_limit(job: Job) -> None:
    """Log that a job is past its hard limit, and is ended for it."""
    facts = {"seconds": _plain(job.hard_limit_seconds), "name": job.task, "id": job.id}
    logger.error("Hard time limit (%(seconds)ss) exceeded for %(name)s[%(id)s]", facts, extra={"data": facts})


def _plain(seconds: float | None) -> str:
    return f"{seconds:g}"
