"""The child: reads jobs, runs them, reports; one process, one thread, no loop but this one."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import cast

import msgspec

from celeriac.message import Finished, Job
from celeriac.pools.base import PoolOptions, Runner, exit_code
from celeriac.pools.limits import SignalLimit
from celeriac.pools.prefork.board import OUTBOX_BYTES, Board
from celeriac.pools.prefork.inbox import STOP, Mail

logger: logging.Logger = logging.getLogger(__name__)

# Reports of short jobs wait for company, so that the parent wakes once for many: no longer than this, unless
# the inbox is empty before.
RING_AFTER_SECONDS = 0.002
RING_AFTER_REPORTS = 16  # half of what the parent gives: it refills while we go on

_LONG_REPORT = OUTBOX_BYTES // 4 - 8
_ROOM_PAUSE_SECONDS = 0.0005

_encode = msgspec.msgpack.Encoder().encode


class Child:
    """A process that runs jobs.

    1. read the next job from the inbox
    2. note on the board that it begins
    3. run it
    4. post the report to the outbox
    5. ring the parent, once for several short jobs

    Args:
        board: Shared with the parent.
        slot: Whose child this is.
        far: Our end of the inbox.
        runner: Runs the jobs.
        watch_memory: Whether to note the memory used on the board.
    """

    def __init__(
        self, board: Board, slot: int, far: socket.socket, runner: Runner, watch_memory: bool = False
    ) -> None:
        self._slot = board.slot(slot)
        self._mail = Mail(far)
        self._runner = runner
        self._watch_memory = watch_memory
        self._limit = SignalLimit()
        self._unrung = 0  # reports posted since we rang
        self._oldest = 0.0  # when the first of them was done

    def run(self) -> int:
        """Work until told to stop and return the exit code."""
        code = 1
        try:
            self._runner.begin()
            signal.signal(signal.SIGUSR1, self._on_soft_limit)
            self._slot.ready(os.getpid())
            self._mail.ring(self._slot.tail)
            self._work()
            code = 0
        except SystemExit as exc:
            code = exit_code(exc)
        finally:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            self._slot.ending()
            self._runner.end(code)
            self._runner.close()
        return code

    def _work(self) -> None:
        mail, slot, run = self._mail, self._slot, self._runner.run
        clock = time.time
        more = False
        while True:
            read = mail.poll()
            if read is None:
                # What was promised may not come: taken back for others, or there was no room for it.
                if not more or (self._unrung and not mail.comes(RING_AFTER_SECONDS)):
                    self._ring()
                read = mail.wait()
            if read is STOP:
                self._ring()
                return
            job = cast("Job", read)
            more = job.more
            now = clock()
            if self._unrung and (not job.short or now - self._oldest > RING_AFTER_SECONDS):
                self._ring()  # what comes now may take long
            slot.begin(job.number, now)
            if job.soft_limit_seconds is None:
                self._post(run(job, None), now)
            else:
                self._limit.seconds = job.soft_limit_seconds
                self._post(run(job, self._limit), now)

    def _post(self, report: Finished, now: float) -> None:
        report.started_at = now
        if self._watch_memory:
            self._slot.note_memory(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        data = _encode(report)
        if len(data) > _LONG_REPORT:
            self._ring()  # first what was done before it
            self._mail.send_report(data)
            return
        while not self._slot.post(data):
            self._ring()
            time.sleep(_ROOM_PAUSE_SECONDS)  # the parent has more than it can do; so it shall be
        if not self._unrung:
            self._oldest = now
        self._unrung += 1
        if self._unrung >= RING_AFTER_REPORTS:
            self._ring()

    def _ring(self) -> None:
        if self._unrung:
            self._unrung = 0
            self._mail.ring(self._slot.tail)

    def _on_soft_limit(self, signum: int, frame: FrameType | None) -> None:
        self._limit.raise_if_overdue()


def child_main(
    board: Board, make_runner: Callable[[], Runner], options: PoolOptions
) -> Callable[[int, str, socket.socket], int]:
    """Return what the forker runs in a new child."""
    watch_memory = options.max_memory_per_child_kib is not None

    def main(slot: int, name: str, far: socket.socket) -> int:
        name_records(name)
        options.in_child(slot + 1)
        return Child(board, slot, far, make_runner(), watch_memory).run()

    return main


def name_records(name: str) -> None:
    """Let log records and `multiprocessing.current_process()` say which child they come from."""
    loaded = sys.modules.get("multiprocessing")  # 8 ms to import: not for a name alone
    if loaded is not None:
        loaded.current_process().name = name  # logging asks there by itself
        return
    make = logging.getLogRecordFactory()

    def record(*args: object, **kwargs: object) -> logging.LogRecord:
        made = make(*args, **kwargs)
        made.processName = name
        return made

    logging.setLogRecordFactory(record)
