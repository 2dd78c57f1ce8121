"""What the node knows of one host."""

from __future__ import annotations

import asyncio

from celeriac.message import Job, Started
from celeriac.pools.hosted.line import NodeEnd


class Member:
    """What the node knows of one host."""

    __slots__ = (
        "condemned",
        "deadline",
        "doomed",
        "heard",
        "index",
        "jobs",
        "line",
        "name",
        "pid",
        "ready",
        "retiring",
        "started",
        "stop_sent",
        "stuck",
        "taken",
        "timers",
        "told",
    )

    def __init__(self, index: int, name: str) -> None:
        self.index: int = index
        self.name: str = name
        self.line: NodeEnd = NodeEnd()
        self.pid: int = 0
        self.ready: bool = False
        self.retiring: bool = False  # gets no more jobs
        self.stop_sent: bool = False
        self.stuck: bool = False  # has a job in it that is accounted for and does not end
        self.doomed: bool = False  # it is being killed by us
        self.jobs: dict[int, Job] = {}  # given and not accounted for, in order
        self.started: dict[int, Started] = {}
        self.taken: int = 0  # jobs ever given to it
        self.condemned: dict[int, float | None] = {}  # jobs that are told to end; the hard limit, if for that
        self.heard: set[int] = set()  # of those, the ones for which the host has read the order
        self.timers: dict[int, list[asyncio.TimerHandle]] = {}  # of each job's limits
        self.told: set[int] = set()  # jobs of which it was told that they are past their soft limit
        self.deadline: asyncio.TimerHandle | None = None  # for it to get ready, or to end

    def forget(self, number: int) -> Job | None:
        """Remove a job that is accounted for."""
        for timer in self.timers.pop(number, ()):
            timer.cancel()
        self.started.pop(number, None)
        self.told.discard(number)
        return self.jobs.pop(number, None)

    def expect(self, deadline: asyncio.TimerHandle | None) -> None:
        """Have it do something in time, instead of what was expected before; None: nothing."""
        if self.deadline is not None:
            self.deadline.cancel()
        self.deadline = deadline

    def disarm(self) -> None:
        """Forget all limits and deadlines."""
        self.expect(None)
        for timers in self.timers.values():
            for timer in timers:
                timer.cancel()
        self.timers.clear()
