"""The host: a process that runs many jobs at once. What all kinds of hosts have in common."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

from celeriac.message import Finished, Job, Lost, Report, Started
from celeriac.pools.base import PoolOptions, Runner, exit_code, exit_text
from celeriac.pools.hosted.line import HostEnd, Order, Stop
from celeriac.pools.prefork.child import name_records
from celeriac.pools.prefork.forker import ChildMain


class Host:
    """Reads jobs, has them run and reports, `celeriac.pools.hosted.pool` being the other side.

    1. say that a job begins, before it does: should it block everything, the node knows of it
    2. begin it at once; the node gives no more jobs than there are slots
    3. report the ends, those of one turn of the loop together
    4. end a job that it is told to; interrupt one that blocks the loop beyond a limit of its own

    Args:
        line: To the node.
        make_runner: Called for what runs the jobs; one for each job at a time.
    """

    def __init__(self, line: HostEnd, make_runner: Callable[[], Runner]) -> None:
        self.line: HostEnd = line
        self._make_runner = make_runner
        self._first: Runner = make_runner()  # the one that speaks for the process
        self._idle: list[Runner] = [self._first]
        self._out: list[Report] = []
        self._flush_due = False

    def run(self) -> int:
        """Work until told to stop and return the exit code."""
        code = 1
        try:
            self._first.begin()
            signal.signal(signal.SIGUSR1, self._on_nudge)
            for signum in (signal.SIGINT, signal.SIGTERM):  # sent to the group, they are the node's to handle
                signal.signal(signum, lambda *_: None)  # not ignored: programs of tasks would inherit that
            self.serve()
            code = 0
        except SystemExit as exc:
            code = exit_code(exc)
        finally:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            self._first.end(code)
            for runner in self._idle:
                if runner is not self._first:
                    runner.close()
            self._first.close()
        return code

    # --- what each kind of host does in its own way --------------------------------------------------

    def serve(self) -> None:
        """Say that jobs are taken, and have `read_all` called whenever there is mail, until told to stop."""
        raise NotImplementedError

    def begin(self, job: Job, runner: Runner) -> None:
        """Have a job begun in the loop's next turn; `ended` is called with what became of it."""
        raise NotImplementedError

    def end(self, number: int, signum: int) -> None:
        """Have an exception raised in a job, if it still runs."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """Raise in the job that runs at this very moment, if it is past one of its limits."""
        raise NotImplementedError

    def soon(self, function: Callable[[], None]) -> None:
        """Have a function called in the loop's next turn."""
        raise NotImplementedError

    # --- for those -----------------------------------------------------------------------------------

    def read_all(self) -> bool:
        """Do what the node says; return False when it says to end."""
        jobs: list[Job] = []
        orders: list[Order] = []
        going = True
        while (word := self.line.read()) is not None:
            if isinstance(word, Stop):
                going = False
                break
            if isinstance(word, Order):
                self.line.heard(word.number)
                orders.append(word)
            else:
                jobs.append(word)
        if jobs:
            now, pid = time.time(), os.getpid()
            self._out.extend(Started(number=job.number, pid=pid, at=now) for job in jobs)
            self.flush()
            for job in jobs:
                self.begin(job, self._idle.pop() if self._idle else self._make_runner())
        for order in orders:  # now, as they may be about these very jobs
            self.end(order.number, order.signal)
        return going

    def ended(self, report: Finished | Lost, started_at: float, runner: Runner) -> None:
        """Report how a job has ended; its runner is free for another one."""
        if isinstance(report, Finished):
            report.started_at = started_at
        self._idle.append(runner)
        self._out.append(report)
        if not self._flush_due:
            self._flush_due = True
            self.soon(self.flush)

    def flush(self) -> None:
        """Send the reports that there are."""
        self._flush_due = False
        if self._out:
            out, self._out = self._out, []
            self.line.report(out)

    def _on_nudge(self, signum: int, frame: FrameType | None) -> None:
        self.interrupt()


def escaped(job: Job, exc: BaseException) -> Lost:
    """Return the report of a job that has ended with what is no ``Exception``."""
    code = exit_code(exc) if isinstance(exc, SystemExit) else 1
    return Lost(number=job.number, started=True, reason=exit_text(code, job.number), pid=os.getpid())


def host_main(
    make_host: Callable[[HostEnd, Callable[[], Runner]], Host],
    make_runner: Callable[[], Runner],
    options: PoolOptions,
) -> ChildMain:
    """Return what the forker runs in a new host."""

    def main(slot: int, name: str, far: socket.socket) -> int:
        name_records(name)
        options.in_child(slot)
        return make_host(HostEnd(far), make_runner).run()

    return main
