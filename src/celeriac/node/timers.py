"""Tasks whose time has not come: kept here when the broker cannot keep them or it is a matter of seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from celeriac.clock import Clock
from celeriac.node.work import Work

_LONGEST_SECONDS = 3600.0  # then look at the clock again: somebody may have set it


class Timers:
    """Holds work until it is due; it stays leased meanwhile.

    Args:
        clock: Says what time it is.
        due: Called on the loop with work whose time has come.
    """

    def __init__(self, clock: Clock, due: Callable[[Work], None]) -> None:
        self._clock = clock
        self._due = due
        self._held: dict[int, tuple[Work, float, asyncio.TimerHandle]] = {}

    def hold(self, work: Work, until: float) -> None:
        """Keep work until a moment in epoch seconds."""
        delay = min(max(0.0, until - self._clock.time()), _LONGEST_SECONDS)
        timer = asyncio.get_running_loop().call_later(delay, self._ring, work.number)
        self._held[work.number] = work, until, timer

    def drop(self, work: Work) -> None:
        """Let go of work, if it is held."""
        held = self._held.pop(work.number, None)
        if held is not None:
            held[2].cancel()

    def held(self) -> list[tuple[Work, float]]:
        """Return what is held, with its times."""
        return [(work, until) for work, until, _ in self._held.values()]

    def take_back(self) -> list[Work]:
        """Let go of everything and return it."""
        works = []
        for work, _, timer in self._held.values():
            timer.cancel()
            works.append(work)
        self._held.clear()
        return works

    def __len__(self) -> int:
        """Return how much is held."""
        return len(self._held)

    def _ring(self, number: int) -> None:
        work, until, _ = self._held.pop(number)
        if until > self._clock.time():
            self.hold(work, until)
        else:
            self._due(work)
