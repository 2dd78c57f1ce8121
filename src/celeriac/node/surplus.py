"""The surplus: what was fetched for slots that long tasks have taken since, and others could run now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from celeriac.message import Requeue, Started
from celeriac.node.dispatch import Dispatcher
from celeriac.node.receive import Receiver
from celeriac.node.report import Reporter
from celeriac.ports import Pool

PATIENCE_SECONDS = 1.0  # for which something may wait behind tasks that do not end
_LOOK_SECONDS = 0.5


def all_take_long(running: Sequence[Started], slots: int, now: float) -> bool:
    """Return whether every slot has a job that has run for longer than others shall wait behind it.

    Args:
        running: What runs.
        slots: How many there are.
        now: Epoch seconds.
    """
    return len(running) >= slots and all(now - one.at >= PATIENCE_SECONDS for one in running)


class Surplus:
    """Hands back what waits here in vain, `celeriac.node.node.Beside`.

    1. look whether every slot is taken for long, and something waits
    2. say that tasks take long, so that nothing more is fetched than there are slots: what is handed back
       does not come again before one is free
    3. hand back what waits, to the head of its queue where the broker can

    Args:
        pool: Knows what runs.
        dispatcher: Knows what waits for a slot.
        receiver: Takes it back.
        reporter: Hands it back.
    """

    def __init__(self, pool: Pool, dispatcher: Dispatcher, receiver: Receiver, reporter: Reporter) -> None:
        self._pool = pool
        self._dispatcher = dispatcher
        self._receiver = receiver
        self._reporter = reporter

    async def open(self) -> None:
        """Nothing has to be prepared."""

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._dispatcher.in_pool >= self._pool.size:
                await self.look()

    async def look(self) -> None:
        """Hand back what waits while every slot is taken for long."""
        running = self._pool.running()
        if not all_take_long(running, self._pool.size, time.time()):
            return
        dispatcher = self._dispatcher
        dispatcher.note(1, PATIENCE_SECONDS)
        # First of all the broker has to know, or it would send at once what goes back.
        await self._receiver.adapt()
        if dispatcher.waiting() + dispatcher.in_pool > len(running):
            works = self._receiver.unbegun()
            kept = max(
                0, dispatcher.base - len(running)
            )  # by who has raised that, or for slots still to come
            for work in reversed(works[:kept]):
                dispatcher.add_first(work)
            for work in works[kept:]:
                self._reporter.hand_back(work, Requeue(untouched=True))
        # Behind those that came before: a quorum queue has what comes back in the order of its coming back.
        for delivery in self._receiver.unseen():
            self._reporter.add(None, delivery, Requeue(untouched=True))
        dispatcher.pump()
