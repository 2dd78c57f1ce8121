"""The desk where debounced calls ask whether they are the last of their burst."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from celeriac.bursts import Bursts, Turn, from_header
from celeriac.node.far_store import FarStore
from celeriac.node.work import Work


class BurstDesk:
    """Asks for debounced calls whose time has come, all that wait in one round trip.

    While the store is away they wait.

    Args:
        connect: Returns the bursts; called when they are first needed.
        tell: Called on the loop with work and what `Bursts.begin` has said of it.
    """

    def __init__(self, connect: Callable[[], Bursts], tell: Callable[[Work, float], None]) -> None:
        self._tell = tell
        self._store: FarStore[Bursts] = FarStore(
            connect,
            "celeriac-bursts",
            "The bursts of debounced tasks are out of reach: %s. None of them begins; trying again.",
            "The bursts of debounced tasks are to be had again.",
        )
        self._waiting: dict[int, tuple[Work, Turn]] = {}  # by number, in order
        self._bell = asyncio.Event()

    def ask(self, work: Work) -> None:
        """Line up work whose message says its turn; without a turn that can be read it runs."""
        try:
            turn = from_header(work.headers.burst or "")
        except ValueError:
            self._tell(work, 0.0)
            return
        self._waiting[work.number] = work, turn
        self._bell.set()

    def drop(self, work: Work) -> None:
        """Let go of work, if it waits here."""
        self._waiting.pop(work.number, None)

    def take_back(self) -> list[Work]:
        """Let go of everything that waits here and return it."""
        waiting, self._waiting = self._waiting, {}
        return [work for work, _ in waiting.values()]

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._bell.wait()
            self._bell.clear()
            if not await self._store.served(self._ask):
                self._bell.set()

    async def close(self) -> None:
        """Close the connection."""
        await self._store.close()

    async def _ask(self) -> None:
        asked = list(self._waiting.values())
        if not asked:
            return
        keep_seconds = max(work.policy.task.lock_seconds for work, _ in asked)
        turns = [turn for _, turn in asked]
        told = await self._store.call(lambda bursts: bursts.begin(turns, keep_seconds))
        for (work, _), seconds in zip(asked, told, strict=True):
            if self._waiting.pop(work.number, None) is not None:  # else it was taken back meanwhile
                self._tell(work, seconds)
