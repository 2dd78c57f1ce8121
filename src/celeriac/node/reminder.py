"""Learning what was revoked while a node was not there, or did not hear."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from celeriac.backoff import intervals
from celeriac.errors import TransportError
from celeriac.net.lane import Lane
from celeriac.node.revoked import Revoked
from celeriac.node.revoker import Revoker
from celeriac.revocations import Revocation, Revocations

logger: logging.Logger = logging.getLogger("celery.worker.control")

_START_SECONDS: Final = 0.2
_STEP_SECONDS: Final = 1.0
_MOST_SECONDS: Final = 10.0


class Reminder:
    """Asks the broker what is revoked: before the node takes its first message, and whenever it is told to.

    Clients note a revocation before they broadcast it, and a node listens before it asks: it misses none.
    So nothing has to be asked for a task.

    Args:
        store: What the broker remembers.
        revoked: What the node knows.
        revoker: Takes back what the node has already.
        kept_seconds: How long revocations are kept.
    """

    def __init__(self, store: Revocations, revoked: Revoked, revoker: Revoker, kept_seconds: float) -> None:
        self._store = store
        self._revoked = revoked
        self._revoker = revoker
        self._kept_seconds = kept_seconds
        self._lane = Lane("celeriac-revocations")
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Have the broker asked again: some broadcasts may have been missed."""
        self._asked.set()

    async def open(self) -> None:
        """Ask the broker, if that is possible now."""
        self._asked.clear()
        try:
            await self._ask()
        except TransportError as exc:
            logger.warning("What was revoked before is not known yet: %s", exc)
            self.ask()

    async def run(self) -> None:
        """Ask whenever it is needed, until cancelled."""
        pauses = intervals(_START_SECONDS, _STEP_SECONDS, _MOST_SECONDS)
        try:
            while True:
                await self._asked.wait()
                self._asked.clear()
                try:
                    await self._ask()
                    pauses = intervals(_START_SECONDS, _STEP_SECONDS, _MOST_SECONDS)
                except TransportError as exc:
                    logger.warning("What was revoked meanwhile is not known yet: %s", exc)
                    self.ask()
                    await asyncio.sleep(next(pauses))
        finally:
            self._lane.close(timeout_seconds=0)

    async def note(self, revoked: Sequence[Revocation]) -> None:
        """Have the broker remember what somebody has only broadcast, as Celery's clients do."""
        try:
            await self._lane.run(self._store.note, revoked, kept_seconds=self._kept_seconds)
        except TransportError as exc:
            logger.warning("Workers that start later will not know what was revoked: %s", exc)

    async def _ask(self) -> None:
        new = self._revoked.remember(await self._lane.run(self._store.recall))
        if new:
            these = Revoked(kept_seconds=self._kept_seconds)
            these.add(new)
            self._revoker.revoke(these.covers, None)
