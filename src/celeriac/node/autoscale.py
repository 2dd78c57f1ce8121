"""As many slots as there is work for: ``--autoscale=max,min``."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from celeriac.node.dispatch import Dispatcher
from celeriac.ports import Pool

logger: logging.Logger = logging.getLogger("celery.worker.autoscale")

LOOK_SECONDS = 0.25
KEEPALIVE_SECONDS = 30.0  # Celery's


class Autoscaler:
    """Changes how many slots the pool has, `celeriac.node.node.Beside`.

    1. have a slot for everything that waits for one, up to the most
    2. let slots go when they have not been needed for a while, down to the fewest

    Args:
        pool: Whose slots.
        dispatcher: Knows how much work there is.
        most: Slots at most.
        fewest: Slots at least, at the beginning too.
        on_room: Called when there are more.
    """

    def __init__(
        self, pool: Pool, dispatcher: Dispatcher, most: int, fewest: int, on_room: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._dispatcher = dispatcher
        self._on_room = on_room
        self._keepalive_seconds = float(os.environ.get("AUTOSCALE_KEEPALIVE") or KEEPALIVE_SECONDS)
        self._needed_at = time.monotonic()  # when all slots were in use last
        self._peak = 0  # slots that were needed since
        self.most: int = most
        self.fewest: int = fewest

    async def open(self) -> None:
        """Nothing has to be prepared."""

    async def run(self) -> None:
        """Look at the work again and again, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Have more slots if there is work for them; fewer if there was none for a while."""
        needed, size = self._dispatcher.in_pool + self._dispatcher.waiting(), self._pool.size
        now = time.monotonic()
        self._peak = max(self._peak, needed)
        if needed >= size:
            self._needed_at, self._peak = now, 0
            target = min(needed, self.most)
        elif now - self._needed_at >= self._keepalive_seconds:
            target, self._needed_at, self._peak = self._peak, now, 0
        else:
            target = size
        self._resize(min(max(target, self.fewest), self.most))

    def update(self, most: int | None, fewest: int | None) -> None:
        """Choose between other numbers from now on.

        Raises:
            ValueError: They make no sense.
        """
        most = self.most if most is None else most
        fewest = self.fewest if fewest is None else fewest
        if not 1 <= fewest <= most:
            raise ValueError(f"Autoscale between {fewest} and {most} makes no sense.")
        self.most, self.fewest = most, fewest
        self.look()

    def info(self) -> dict[str, Any]:  # Any: numbers, for `inspect stats`
        """Return what is told of it."""
        work = self._dispatcher.in_pool + self._dispatcher.waiting()
        return {"max": self.most, "min": self.fewest, "current": self._pool.size, "qty": work}

    def _resize(self, size: int) -> None:
        before = self._pool.size
        if size == before:
            return
        logger.info("Scaling %s %s processes.", "up" if size > before else "down", abs(size - before))
        self._pool.resize(size)
        if size > before:
            self._dispatcher.pump()
            self._on_room()
