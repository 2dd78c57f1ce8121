"""Rate limits: tasks of a kind that begin here only so often; a few wait here, the others at the broker."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from celeriac.clock import Clock
from celeriac.limits import TokenBucket, tokens_per_second
from celeriac.node.turnstile import MOST_OF_A_KIND, PARK_LEAST_SECONDS, PARK_MOST_SECONDS
from celeriac.node.work import Work

_AHEAD_SECONDS = 2.0  # for which there are tasks here: those at the broker may be a little late
MOST_HELD = 400  # that wait here at all


class _Line:
    """The tasks of one kind that wait for a token."""

    __slots__ = ("bucket", "pace", "timer", "works")

    def __init__(self, bucket: TokenBucket | None) -> None:
        self.bucket = bucket  # None: as often as they can
        self.works: deque[Work] = deque()
        self.timer: asyncio.TimerHandle | None = None
        self.pace = 0.0  # when the last one that was parked may begin, in epoch seconds


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

    def parked_until(self, name: str) -> float | None:
        """Return until when a task shall be parked because enough others wait here; None: take it in.

        Half of what it will take until its turn, as far as this worker can tell: another one may have a token
        sooner, and nobody holds more than it can begin soon.

        Args:
            name: The task's, which has a rate limit.
        """
        line = self._lines.get(name)
        if line is None or line.bucket is None:
            return None
        rate, waiting = line.bucket.rate, len(line.works)
        if waiting < max(MOST_OF_A_KIND, math.ceil(rate * _AHEAD_SECONDS)) and len(self) < MOST_HELD:
            return None
        if not waiting and not line.bucket.wait_seconds(self._clock.monotonic()):
            return None
        now, enough_seconds = self._clock.time(), waiting / rate
        line.pace = max(line.pace, now + enough_seconds) + 1.0 / rate
        least = min(PARK_LEAST_SECONDS, enough_seconds / 2)
        return now + min(max((line.pace - now) / 2, least), PARK_MOST_SECONDS)

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
