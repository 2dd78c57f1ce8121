"""The scribe: stores outcomes, counts parts of chords and settles messages, a batch at a time."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TypeVar, cast

import msgspec

from celeriac.backoff import intervals
from celeriac.errors import BackendError, BackendUnreachable, TransportError
from celeriac.locks import Lock
from celeriac.message import DeadLetter, Delivery, Finished, Part, Record, Start, Verdict
from celeriac.node.keeper import Keeper
from celeriac.node.link import Link
from celeriac.node.work import Work
from celeriac.ports import CountsParts, ResultBackend
from celeriac.states import READY_STATES
from celeriac.tries import Tries
from celeriac.wire.task_event import TaskEvent

logger: logging.Logger = logging.getLogger("celery.worker.request")

R = TypeVar("R")

_RETRY_START_SECONDS, _RETRY_STEP_SECONDS, _RETRY_MOST_SECONDS = 0.2, 0.4, 3.0


class Entry(msgspec.Struct):
    """One thing to write down."""

    record: Record | None  # to store, before
    delivery: Delivery  # to settle
    verdict: Verdict
    part: Part | None = None  # to count, in between
    work: Work | None = None  # of a part: what it was
    joins: bool = False  # the part has completed its chord
    told: TaskEvent | None = None  # what monitors are to be told when it is written down
    after: int = 0  # not before the work of this number has ended
    seen: tuple[Work, Finished] | None = None  # what a witness is to see then
    frees: Lock | None = None  # of a unique task that has ended
    keeps: Lock | None = None  # of one that comes again


class Scribe:
    """Writes down what has become of messages.

    Store first, then count parts of chords, then settle. No stored outcome, no acknowledgement: worse to lose
    than to repeat. When store or broker is away it keeps trying; deliveries stay leased meanwhile. What a
    store refuses for itself becomes a dead letter, and the others of its batch do not suffer for it; so does
    what it could not be told in all the tries that there are.

    Args:
        link: To the broker.
        backend: The result store; None when results are not kept.
        keeper: Frees the locks of unique tasks.
        tries: How often a result is stored until it is given up, and after which pauses; None never gives up.
    """

    def __init__(
        self, link: Link, backend: ResultBackend | None, keeper: Keeper, tries: Tries | None = None
    ) -> None:
        self._link = link
        self._backend = backend
        self._keeper = keeper
        self._tries = tries

    def holds(self, delivery: Delivery) -> bool:
        """Return whether a delivery is ours, as far as we know."""
        return self._link.consumer.holds(delivery)

    async def write(self, entries: Sequence[Entry], begun: Iterable[Delivery]) -> None:
        """Return when all is written; entries that have completed a chord are marked and not settled.

        Args:
            entries: What has ended; changed in place.
            begun: What has begun, and ends for the broker with that.
        """
        if self._link.transport.caps.leases:
            await self._fence(entries)
        await self._unlock(entries)
        await self._store(entries)
        await self._count([entry for entry in entries if entry.part is not None])
        verdicts: list[tuple[Delivery, Verdict]] = [
            (entry.delivery, entry.verdict) for entry in entries if not entry.joins
        ]
        verdicts.extend((delivery, Start()) for delivery in begun)
        if verdicts:
            settle = functools.partial(self._link.consumer.settle, verdicts)
            await self._insist(settle, f"{len(verdicts)} messages cannot be settled")

    async def _unlock(self, entries: Sequence[Entry]) -> None:
        """Free locks before anybody hears of a result: who then calls again wants it to be run again."""
        free = [entry.frees for entry in entries if entry.frees is not None]
        keep = [entry.keeps for entry in entries if entry.keeps is not None]
        if free or keep:
            await self._keeper.settle(free, keep)

    async def _fence(self, entries: Sequence[Entry]) -> None:
        """Keep what others have told of a task that was taken from us while we were out of touch.

        What nobody has told anything of is stored all the same: the broker may have lost its messages.
        """
        if not self._link.sure:
            await self._insist(self._link.renew, "The leases cannot be renewed")
        holds = self._link.consumer.holds
        taken = {
            entry.record.id: entry
            for entry in entries
            if entry.record is not None and not holds(entry.delivery)
        }
        if not taken or self._backend is None or not self._backend.persistent:
            return
        fetch = functools.partial(asyncio.to_thread, self._backend.fetch, list(taken))
        for id_, outcome in (await self._insist(fetch, "Results cannot be looked at")).items():
            if outcome.state in READY_STATES:
                taken[id_].record = None
                logger.warning(
                    "The result of task %s is dropped: this node was out of touch for longer than its lease, "
                    "and others have recorded %s.",
                    id_,
                    outcome.state,
                )

    async def _store(self, entries: Sequence[Entry]) -> None:
        count = sum(entry.record is not None for entry in entries)
        if not count or self._backend is None:
            return
        attempts = itertools.count()

        async def store(backend: ResultBackend) -> None:
            # A store that was away may have been so for longer than our lease.
            if next(attempts) and self._link.transport.caps.leases:
                await self._fence(entries)
            if records := [entry.record for entry in entries if entry.record is not None]:
                await backend.astore(records)

        try:
            await self._insist(
                functools.partial(store, self._backend),
                f"{count} results cannot be stored, and their messages stay ours",
                None if self._tries is None else self._tries.pauses(),
            )
        except BackendUnreachable as exc:
            for entry in entries:
                if entry.record is not None:
                    _give_up(entry, entry.record, "cannot be stored", exc)
        except BackendError as exc:
            await self._store_each(entries, exc)

    async def _store_each(self, entries: Sequence[Entry], cause: BackendError) -> None:
        """Find the record that the store refuses; the others must not suffer for it."""
        with_records = [entry for entry in entries if entry.record is not None]
        if len(with_records) > 1:
            for entry in with_records:
                await self._store([entry])
            return
        (entry,) = with_records
        assert entry.record is not None
        _give_up(entry, entry.record, "is refused", cause)

    async def _count(self, entries: Sequence[Entry]) -> None:
        """Count parts of chords, and note at those which have completed one that they have."""
        parts = [entry.part for entry in entries if entry.part is not None]
        if not parts:
            return
        backend = cast("CountsParts", self._backend)
        try:
            completing = await self._insist(
                functools.partial(backend.count_parts, parts),
                f"{len(parts)} parts of chords cannot be counted, and their messages stay ours",
            )
        except BackendError as exc:
            await self._count_each(entries, exc)
            return
        of_task = {entry.part.task_id: entry for entry in entries if entry.part is not None}
        for task_id in completing:
            of_task[task_id].joins = True

    async def _count_each(self, entries: Sequence[Entry], cause: BackendError) -> None:
        """Find the part that the store refuses; the others must not suffer for it."""
        if len(entries) > 1:
            for entry in entries:
                await self._count([entry])
            return
        (entry,) = entries
        assert entry.part is not None
        logger.error(
            "Task %s cannot be counted as a part of chord %s: %s; its message is kept as a dead letter.",
            entry.part.task_id,
            entry.part.chord_id,
            cause,
        )
        entry.verdict = DeadLetter(f"The result store did not count it in its chord: {cause}", "unstored")

    async def _insist(
        self, call: Callable[[], Awaitable[R]], failing: str, pauses: Iterator[float] | None = None
    ) -> R:
        """Ask the broker or the result store until it answers, or until there are no more pauses."""
        for pause in pauses or intervals(_RETRY_START_SECONDS, _RETRY_STEP_SECONDS, _RETRY_MOST_SECONDS):
            try:
                return await call()
            except (TransportError, BackendUnreachable) as exc:
                logger.warning("%s: %s; trying again in %.1f s.", failing, exc, pause)
                await asyncio.sleep(pause)
        return await call()  # the last time


def _give_up(entry: Entry, record: Record, how: str, cause: BackendError) -> None:
    """Have a message become a dead letter, as its result is not stored."""
    logger.error("The result of task %s %s: %s; its message is kept as a dead letter.", record.id, how, cause)
    entry.verdict = DeadLetter(f"Its result {how}: {cause}", "unstored")
