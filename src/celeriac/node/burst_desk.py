"""The desk where debounced calls ask whether they are the last of their burst."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from celeriac.bursts import Bursts, Turn, from_header
from celeriac.errors import TransportError
from celeriac.net.lane import Lane
from celeriac.node.work import Work

logger: logging.Logger = logging.getLogger("celery.worker.strategy")

RETRY_SECONDS = 1.0  # after the store of bursts has failed


class BurstDesk:
    """Asks for debounced calls whose time has come, all that wait in one round trip.

    While the store is away they wait.

    Args:
        connect: Returns the bursts; called when they are first needed.
        tell: Called on the loop with work and what `Bursts.begin` has said of it.
    """

    def __init__(self, connect: Callable[[], Bursts], tell: Callable[[Work, float], None]) -> None:
        self._connect = connect
        self._tell = tell
        self._bursts: Bursts | None = None
        self._lane = Lane("celeriac-bursts")
        self._waiting: dict[int, tuple[Work, Turn]] = {}  # by number, in order
        self._bell = asyncio.Event()
        self._failing = False

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
            try:
                await self._ask()
            except TransportError as exc:
                self._tell_failure(exc)
                await asyncio.sleep(RETRY_SECONDS)
                self._bell.set()
                continue
            if self._failing:
                self._failing = False
                logger.info("The bursts of debounced tasks are to be had again.")

    async def close(self) -> None:
        """Close the connection."""
        if self._bursts is not None:
            await self._lane.run(self._bursts.close)
        self._lane.close(0)

    async def _ask(self) -> None:
        asked = list(self._waiting.values())
        if not asked:
            return
        if self._bursts is None:
            self._bursts = self._connect()
        keep_seconds = max(work.policy.task.lock_seconds for work, _ in asked)
        told = await self._lane.run(self._bursts.begin, [turn for _, turn in asked], keep_seconds)
        for (work, _), seconds in zip(asked, told, strict=True):
            if self._waiting.pop(work.number, None) is not None:  # else it was taken back meanwhile
                self._tell(work, seconds)

    def _tell_failure(self, exc: TransportError) -> None:
        if not self._failing:
            self._failing = True
            logger.warning(
                "The bursts of debounced tasks are out of reach: %s. None of them begins; trying again.",
                str(exc).rstrip("."),
            )
