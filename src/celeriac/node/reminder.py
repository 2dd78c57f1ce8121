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
from celeriac.signum import signal_number

logger: logging.Logger = logging.getLogger("celery.worker.control")

_START_SECONDS: Final = 0.2
_STEP_SECONDS: Final = 1.0
_MOST_SECONDS: Final = 10.0


class Reminder:
    """Asks the broker what is revoked: before the node takes its first message, and whenever it is told to.

    Clients note a revocation before they broadcast it, and a node listens before it asks: it misses none.
    So nothing has to be asked for a task. What was to be ended, and runs here, is ended when the node learns
    of it: once, for it knows what it has heard or read before.

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
        for signal, those in _by_signal(new).items():
            these = Revoked(kept_seconds=self._kept_seconds)
            these.add(those)
            self._revoker.revoke(these.covers, _signum(signal))


def _by_signal(new: Sequence[Revocation]) -> dict[str, list[Revocation]]:
    """Return what shall not begin, first and under no signal, and what shall end, under the latest one."""
    latest = {(each.value, each.stamp): each.signal for each in new if each.signal}
    found: dict[str, list[Revocation]] = {}
    if begins := [each for each in new if not each.signal]:
        found[""] = begins
    for (value, stamp), signal in latest.items():
        found.setdefault(signal, []).append(Revocation(value, stamp))
    return found


def _signum(signal: str) -> int | None:
    """Return a signal's number; None for none, and for one that this machine does not have."""
    try:
        return signal_number(signal) if signal else None
    except ValueError as exc:
        logger.warning("What was to be ended by a signal goes on here: %s", exc)
        return None
