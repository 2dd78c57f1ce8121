"""The receiver: fetches messages as long as there is room for them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from typing import cast

from celeriac.errors import TransportError
from celeriac.message import Delivery
from celeriac.node.dispatch import Dispatcher
from celeriac.node.intake import Intake
from celeriac.node.link import Link
from celeriac.node.outage import Outage
from celeriac.node.report import BACKLOG_ITEMS, Reporter
from celeriac.node.work import Ledger, Work
from celeriac.ports import Pool, Tethered

_AT_ONCE = 1000  # messages in one fetch when there is no other limit


class Receiver:
    """Fetches messages.

    1. wait for room, and fetch as many as there is room for
    2. after a lost connection, which is noticed without room, too, forget what the broker has taken back, and
       wait for the broker

    Args:
        link: To the broker.
        pool: From where work may have to be recalled.
        ledger: The open work.
        dispatcher: Knows how much may be outstanding.
        reporter: Knows how much waits to be written down.
        intake: Takes the messages in.
        outage: Minds what goes on after a lost connection.
    """

    def __init__(
        self,
        link: Link,
        pool: Pool,
        ledger: Ledger,
        dispatcher: Dispatcher,
        reporter: Reporter,
        intake: Intake,
        outage: Outage,
    ) -> None:
        self._link = link
        self._pool = pool
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._reporter = reporter
        self._intake = intake
        self._outage = outage
        self._adapting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._lost = False
        self._changed = asyncio.Event()
        self._told_prefetch = -1
        self._calls = itertools.count(1)
        self.waits_with: int = 0  # the number of the call to the broker that is under way; 0 = none

    def on_room(self) -> None:
        """Note that there may be more room than before."""
        self._changed.set()
        if not self._outage.over:
            self.on_release()

    def on_release(self) -> None:
        """Note that something that waited here for its time, a token or a permit waits no more."""
        # Who was granted more for its sake would be sent more than it can run.
        if self._granted() != self._told_prefetch and (self._adapting is None or self._adapting.done()):
            self._adapting = asyncio.create_task(self.adapt(), name="prefetch")

    async def changed(self) -> None:
        """Wait until something was ended or settled."""
        self._changed.clear()
        await self._changed.wait()

    async def run(self) -> None:
        """Receive until cancelled; what was taken by then is in the ledger.

        Raises:
            GiveUp: The broker is gone and shall not be tried again.
        """
        try:
            await self._receive()
        finally:
            if self._watching is not None:
                self._watching.cancel()

    async def _receive(self) -> None:
        self._watch()
        while True:
            limit = await self._room()
            try:
                self.waits_with = next(self._calls)
                await self._tell_prefetch()
                deliveries = await self._link.consumer.receive(limit)
            except TransportError as exc:
                self.waits_with = 0
                await self._reconnect(exc)
                self._watch()
                continue
            self.waits_with = 0
            self._intake.take(deliveries)

    def take_back(self) -> list[Work]:
        """Return everything that has not begun, in the order of its coming; it stays in the ledger."""
        return sorted([*self.unbegun(), *self._intake.take_back()], key=lambda work: work.number)

    def unbegun(self) -> list[Work]:
        """Return everything that only waits for a slot, in the order of its coming; see `take_back`."""
        works = self._dispatcher.take_back()
        for number in self._pool.recall():
            work = self._ledger.get(number)
            if work is not None:
                self._dispatcher.ended(work)
                works.append(work)
        works.sort(key=lambda work: work.number)
        if calls := [work for work in works if work.call is not None]:  # they came over no connection
            for work in reversed(calls):
                self._dispatcher.add_first(work)
            self._dispatcher.pump()
        return [work for work in works if work.call is None]

    def unseen(self) -> Sequence[Delivery]:
        """Return what the broker has sent already though there is no room for it."""
        # After an outage that is one message at least, which would come again as often as it is handed back.
        if self._link.transport.caps.leases or not self._outage.over:
            return ()
        return cast("Tethered", self._link.consumer).unseen()

    async def adapt(self) -> None:
        """Tell the broker what it may hand out now, also while nothing comes in."""
        with contextlib.suppress(TransportError):  # then the receiver hears of it, too
            await self._tell_prefetch()

    def sort_out(self) -> None:
        """Forget what was taken from us while we were out of touch and has not begun; go on with the rest."""
        for number in reversed(self._pool.recall()):
            work = self._ledger.get(number)
            if work is not None:
                self._dispatcher.ended(work)
                self._dispatcher.add_first(work)
        for work in self._ledger:
            if work.waits and not work.joins and not self._link.consumer.holds(work.delivery):
                self._dispatcher.drop(work)
                self._intake.drop(work)
                self._ledger.close(work.number)
        self._dispatcher.pump()
        self.on_room()

    async def _reconnect(self, exc: TransportError) -> None:
        if self._link.transport.caps.leases:
            await self._link.lost(exc)
            return
        self._forget_unstarted()
        self._outage.begin()
        await self.adapt()  # fetch less, from the first message on that a new connection brings
        await self._link.lost(exc)
        self._outage.announce(self._dispatcher.prefetch())

    def _watch(self) -> None:
        """Notice the loss of the present connection, where it is the lease of all that was fetched."""
        self._lost = False
        if self._link.transport.caps.leases or (self._watching is not None and not self._watching.done()):
            return
        consumer = cast("Tethered", self._link.consumer)
        self._watching = asyncio.create_task(self._notice_the_loss(consumer), name="connection")

    async def _notice_the_loss(self, consumer: Tethered) -> None:
        await consumer.lost()
        self._lost = True
        self._changed.set()

    async def _room(self) -> int:
        """Wait until it is worth fetching and return how many messages may be fetched."""
        while True:
            self._changed.clear()
            prefetch = self._dispatcher.prefetch()
            outstanding = len(self._ledger) - self._intake.held()
            room = prefetch - outstanding if prefetch else _AT_ONCE
            # When many are fetched at a time, a trickle would cost a round trip for each.
            least = prefetch // 4 if self._dispatcher.fetches_ahead else 1
            if room >= max(1, least) and self._reporter.backlog < BACKLOG_ITEMS:
                return room
            if self._lost:
                return 1  # the next call does not return messages, but raises why
            await self._changed.wait()

    async def _tell_prefetch(self) -> None:
        prefetch = self._granted()
        if prefetch != self._told_prefetch:
            self._told_prefetch = prefetch
            await self._link.consumer.set_prefetch(prefetch)

    def _granted(self) -> int:
        """Return how much the broker may hand out; twice as much when it is much, as some is not settled."""
        prefetch = self._dispatcher.prefetch()
        if not prefetch:
            return 0
        return self._outage.limited(
            prefetch * (2 if self._dispatcher.fetches_ahead else 1) + self._intake.held()
        )

    def _forget_unstarted(self) -> None:
        """Drop what the broker hands to somebody else now."""
        self._told_prefetch = -1
        works = self.take_back()
        for work in reversed(works):
            if work.is_owed:
                self._dispatcher.add_first(work)
        dropped = [work for work in works if not work.is_owed]
        cast("Tethered", self._link.consumer).came_to_nothing(work.delivery for work in dropped)
        for work in dropped:
            self._ledger.close(work.number)
