"""What the parent knows of one child."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from celeriac.message import Finished, Job, Report
from celeriac.pools.prefork.board import Slot
from celeriac.pools.prefork.inbox import Inbox

_decode = msgspec.msgpack.Decoder(Finished).decode


class Member:
    """What the parent knows of one child."""

    __slots__ = (
        "bytes",
        "deadline",
        "deaf",
        "inbox",
        "index",
        "jobs",
        "limit",
        "name",
        "pid",
        "ready",
        "retiring",
        "silent_looks",
        "sizes",
        "slot",
        "slow",
        "started",
        "stop_sent",
        "taken",
        "timers",
    )

    def __init__(self, index: int, slot: Slot, name: str) -> None:
        self.index: int = index
        self.slot: Slot = slot
        self.name: str = name
        self.inbox: Inbox = Inbox()
        self.pid: int = 0
        self.ready: bool = False
        self.retiring: bool = False  # gets no more jobs
        self.stop_sent: bool = False
        self.jobs: dict[int, Job] = {}  # given and not reported, in order
        self.sizes: dict[int, int] = {}  # their bytes in the socket's buffer
        self.bytes: int = 0
        self.slow: bool = False  # holds a job that others must not wait behind
        self.taken: int = 0  # jobs ever given to it
        self.started: int = 0  # the job whose start we have seen on the board
        self.limit: tuple[int, float] | None = None  # job and hard limit for which it is being killed
        self.silent_looks: int = 0  # at the board in a row that found jobs here and none begun
        self.deaf: bool = False  # it does not even read; gets no jobs until it does
        self.deadline: asyncio.TimerHandle | None = None  # for it to get ready, or to end
        self.timers: list[asyncio.TimerHandle] = []  # of the started job's limits

    def collect(self, posted: Iterable[bytes], reports: list[Report]) -> None:
        """Read what it has reported, as far as it still had that to do.

        Args:
            posted: As it has written it.
            reports: Gets them.
        """
        for data in posted:
            report = _decode(data)
            report.pid = self.pid
            if self.forget(report.number) is not None:
                reports.append(report)

    def forget(self, number: int) -> Job | None:
        """Remove a job that was reported or recalled."""
        job = self.jobs.pop(number, None)
        if job is not None:
            self.bytes -= self.sizes.pop(number)
            if not self.jobs:
                self.slow = False
            if number == self.started:
                self.disarm()
        return job

    def expect(self, deadline: asyncio.TimerHandle | None) -> None:
        """Have it do something in time, instead of what was expected before; None: nothing."""
        if self.deadline is not None:
            self.deadline.cancel()
        self.deadline = deadline

    def disarm(self) -> None:
        """Forget the limits of the job that was running."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()
