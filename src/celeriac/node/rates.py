"""Rate limits: tasks of a kind that begin here only so often."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from celeriac.clock import Clock
from celeriac.limits import TokenBucket, tokens_per_second
from celeriac.node.work import Work


class _Line:
    """The tasks of one kind that wait for a token."""

    __slots__ = ("bucket", "timer", "works")

    def __init__(self, bucket: TokenBucket | None) -> None:
        self.bucket = bucket  # None: as often as they can
        self.works: deque[Work] = deque()
        self.timer: asyncio.TimerHandle | None = None


class Rates:
    """Holds work whose kind has begun often enough for now; it stays leased, and others pass it by.

    Args:
        clock: Says what time it is.
        release: Called on the loop with work that may begin.
    """

    def __init__(self, clock: Clock, release: Callable[[Work], None]) -> None:
        self._clock = clock
        self._release = release
        self._lines: dict[str, _Line] = {}

    def may_begin(self, work: Work) -> bool:
        """Return whether work may begin now; else it is kept here until it may.

        Args:
            work: Its task has a rate limit.
        """
        name = work.headers.task
        line = self._lines.get(name)
        if line is None:
            rate = tokens_per_second(work.policy.task.rate_limit)
            bucket = TokenBucket(rate, self._clock.monotonic()) if rate > 0 else None
            line = self._lines[name] = _Line(bucket)
        if line.bucket is None or (not line.works and line.bucket.take(self._clock.monotonic())):
            return True
        line.works.append(work)
        self._wait(line)
        return False

    def forget(self, name: str) -> None:
        """Take the limit of a kind of task from the task anew; what waits here lines up again."""
        line = self._lines.pop(name, None)
        if line is None:
            return
        if line.timer is not None:
            line.timer.cancel()
        for work in line.works:
            if not work.policy.task.rate_limit or self.may_begin(work):
                self._release(work)

    def drop(self, work: Work) -> None:
        """Let go of work, if it waits here."""
        line = self._lines.get(work.headers.task)
        if line is not None and work in line.works:
            line.works.remove(work)

    def take_back(self) -> list[Work]:
        """Let go of everything and return it."""
        works: list[Work] = []
        for line in self._lines.values():
            works.extend(line.works)
            line.works.clear()
            if line.timer is not None:
                line.timer.cancel()
                line.timer = None
        return works

    def __len__(self) -> int:
        """Return how much waits here."""
        return sum(len(line.works) for line in self._lines.values())

    def _wait(self, line: _Line) -> None:
        if line.timer is None and line.works and line.bucket is not None:
            seconds = line.bucket.wait_seconds(self._clock.monotonic())
            line.timer = asyncio.get_running_loop().call_later(seconds, self._on_token, line)

    def _on_token(self, line: _Line) -> None:
        line.timer = None
        assert line.bucket is not None
        if line.works and line.bucket.take(self._clock.monotonic()):
            self._release(line.works.popleft())
        self._wait(line)
