"""The turnstiles of a node, one behind the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from celeriac.clock import Clock
from celeriac.message import TaskHeaders
from celeriac.node.keeper import Keeper
from celeriac.node.policy import Policy
from celeriac.node.turnstile import ConcurrencyTurnstile, RateTurnstile
from celeriac.node.work import Work
from celeriac.permits import Permits


class Turnstiles:
    """Lets work begin that is limited in the whole fleet: first how often it begins, then how many run.

    In this order, as only the second holds something while work waits. Locks of unique tasks are freed last.

    Args:
        connect: Returns the permits; called when some are first needed.
        clock: Says what time it is.
        room: Returns how many could begin now.
        keeper: Lets work begin once its lock is free, if it has to be.
        parks: Whether the broker keeps messages until a time.
    """

    def __init__(
        self,
        connect: Callable[[], Permits],
        clock: Clock,
        room: Callable[[], int],
        keeper: Keeper,
        *,
        parks: bool,
    ) -> None:
        self._keeper = keeper
        self.rate: RateTurnstile = RateTurnstile(connect, clock, room, self._on_rate, parks=parks)
        self.concurrency: ConcurrencyTurnstile = ConcurrencyTurnstile(
            connect, clock, room, keeper.pass_on, parks=parks
        )
        self._all = (self.rate, self.concurrency)

    def parked_until(self, headers: TaskHeaders, policy: Policy) -> float | None:
        """Return until when a task shall be parked because enough others wait here; None: take it in."""
        found = [until for one in self._all if (until := one.parked_until(headers, policy)) is not None]
        return max(found, default=None)

    def may_begin(self, work: Work) -> bool:
        """Return whether work needs nothing from others; else it waits here until it has all of it."""
        return self.rate.may_begin(work) and self.concurrency.may_begin(work) and self._keeper.may_begin(work)

    def over(self, work: Work) -> None:
        """Note that work is not in the ledger any more."""
        for one in self._all:
            one.over(work)

    def drop(self, work: Work) -> None:
        """Let go of work, if it waits here."""
        for one in self._all:
            one.drop(work)
        self._keeper.drop(work)

    def take_back(self) -> list[Work]:
        """Let go of everything that waits here and return it."""
        return [*(work for one in self._all for work in one.take_back()), *self._keeper.take_back()]

    def on_room(self) -> None:
        """Note that there may be more room than before."""
        for one in self._all:
            one.on_room()
        self._keeper.on_room()

    def __len__(self) -> int:
        """Return how much waits here for permits."""
        return sum(map(len, self._all))

    async def run(self) -> None:
        """Hand out permits until cancelled."""
        async with asyncio.TaskGroup() as both:
            for one in self._all:
                both.create_task(one.run())

    async def close(self) -> None:
        """Give everything back at once."""
        for one in self._all:
            await one.close()

    def _on_rate(self, work: Work) -> None:
        if self.concurrency.may_begin(work):
            self._keeper.pass_on(work)
