"""The reporter: what the pool reports becomes stored outcomes and settled messages."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

import msgspec

from celeriac.backoff import intervals
from celeriac.errors import (
    BackendError,
    BackendUnreachable,
    TransportError,
)
from celeriac.execute.loss import ending_of
from celeriac.execute.verdict import fails, verdict
from celeriac.message import (
    Ack,
    DeadLetter,
    Delivery,
    Finished,
    Lost,
    Part,
    Record,
    Report,
    Requeue,
    Start,
    Started,
    Verdict,
)
from celeriac.node.dispatch import Dispatcher
from celeriac.node.link import Link
from celeriac.node.recent import Recent
from celeriac.node.results import Results
from celeriac.node.work import Ledger, Work
from celeriac.ports import CountsParts, ResultBackend
from celeriac.states import READY_STATES
from celeriac.wire.task import is_alone

logger: logging.Logger = logging.getLogger("celery.worker.request")

R = TypeVar("R")

FLUSH_ITEMS = 256
FLUSH_SECONDS = 0.002
FLUSH_MOST_SECONDS = 0.01  # when store and broker are slow, fewer and larger flushes serve everybody better
BACKLOG_ITEMS = 4096  # unsettled beyond this, nothing more is received

_MOST_IDS = 20  # in one line of the log
_MOST_OBITUARIES = 3  # children that may die of one before the node records the failure, and no more

_RETRY_START_SECONDS, _RETRY_STEP_SECONDS, _RETRY_MOST_SECONDS = 0.2, 0.4, 3.0


class _Entry(msgspec.Struct):
    """One thing to write down."""

    record: Record | None  # to store, before
    delivery: Delivery  # to settle
    verdict: Verdict
    part: Part | None = None  # to count, in between
    work: Work | None = None  # of a part: what it was
    joins: bool = False  # the part has completed its chord


class Reporter:
    """Stores outcomes and settles messages, many at a time.

    1. decide from each report what becomes of its message
    2. flush: store the outcomes, count the parts of chords, then settle. No stored outcome, no
       acknowledgement: worse to lose than to repeat
    3. keep trying when the store or the broker is away; deliveries stay leased meanwhile
    4. have the failures of lost jobs recorded by another child, which can read their bodies: their obituary;
       in the same way a job that has completed a chord has the body sent
    5. say how much is waiting, so that no more is received than can be written down

    Args:
        link: To the broker.
        backend: The result store; None when results are not kept.
        ledger: The open work.
        dispatcher: Told what has ended.
        results: Encodes what no child can.
        on_room: Called when something was ended or settled.
    """

    def __init__(
        self,
        link: Link,
        backend: ResultBackend | None,
        ledger: Ledger,
        dispatcher: Dispatcher,
        results: Results,
        on_room: Callable[[], None],
    ) -> None:
        self._link = link
        self._backend = backend
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._results = results
        self._on_room = on_room
        self._entries: list[_Entry] = []
        self._starts: dict[int, Delivery] = {}  # begun, not told to the broker yet
        self._flushing: list[_Entry] = []  # on their way
        self._flush_took = 0.0  # seconds, the latest one
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self.recent: Recent = Recent()
        self.returned: int = 0  # messages that went back to the broker
        self.closing = False  # there is no pool any more that could run an obituary

    # --- taking in -----------------------------------------------------------------------------------

    def take(self, reports: Sequence[Report]) -> None:
        """Take in what the pool says."""
        runs, seconds = 0, 0.0
        for report in reports:
            if isinstance(report, Finished):
                if self._finished(report):
                    runs += 1
                    seconds += report.runtime
            elif isinstance(report, Started):
                self._started(report)
            else:
                self._lost(report)
        if runs:
            self._dispatcher.note(runs, seconds)
        self._dispatcher.pump()
        self._on_room()
        self._schedule()

    def add(self, record: Record | None, delivery: Delivery, decided: Verdict) -> None:
        """Settle a delivery that the pool never had."""
        self._enter(record, delivery, decided)
        self._schedule()

    def replace(self, work: Work, delivery: Delivery) -> None:
        """Let a delivery take the place of the one that work under way has come with, which is void."""
        work.delivery = delivery
        if work.started and not work.policy.terms.acks_late and work.lost is None:
            self._starts[work.number] = delivery
            self._schedule()

    def mourn(self, work: Work, lost: Lost, decided: Verdict) -> None:
        """Have the failure of lost work recorded, with all that follows from it, before it is settled."""
        work.lost, work.decided = lost, decided
        work.obituaries += 1
        alone = is_alone(work.delivery.envelope)
        if work.obituaries > _MOST_OBITUARIES or (self.closing and alone):
            self._bury(work, lost, decided)
        elif not self.closing:
            self._dispatcher.add_first(work)

    def hand_back(self, work: Work, decided: Verdict) -> None:
        """Settle work that is not going to be run here; an obituary is written as long as there is a pool."""
        if work.lost is not None and work.lost.refused not in ("expired", "invalid"):
            self._dispatcher.add_first(work)
            return
        self._close(work, None, decided)
        self._schedule()

    def unmourned(self) -> list[Work]:
        """Return the lost work whose obituary no child has written."""
        return [work for work in self._ledger if work.lost is not None]

    def mourned(self, work: Work, record: Record | None) -> None:
        """Settle lost work whose obituary was written outside of the pool."""
        assert work.decided is not None
        self._close(work, record, work.decided)
        self._schedule()

    @property
    def backlog(self) -> int:
        """How much waits to be written down."""
        return len(self._entries) + len(self._flushing)

    def backlog_ids(self) -> list[str]:
        """Return the ids of the tasks whose outcomes wait to be written down, of many only the first."""
        entries = itertools.islice(itertools.chain(self._flushing, self._entries), _MOST_IDS)
        return [str(entry.delivery.envelope.headers.get("id")) for entry in entries]

    def _finished(self, report: Finished) -> bool:
        work = self._ledger.close(report.number)
        if work is None:
            return False  # the broker took it back in the meantime
        self._dispatcher.ended(work)
        self._starts.pop(report.number, None)
        decided = work.decided
        if decided is None:
            work.policy.note(report.runtime)
            decided = verdict(work.policy.terms, report, work.delivery.attempt) or Ack()
        self.recent.note(work.headers, decided)
        self._enter(report.record, work.delivery, decided)
        if report.part is not None:
            self._entries[-1].part, self._entries[-1].work = report.part, work
        return True

    def _started(self, report: Started) -> None:
        work = self._ledger.get(report.number)
        if work is None or work.lost is not None:
            return
        work.started = True
        if isinstance(verdict(work.policy.terms, report), Start):
            self._starts[report.number] = work.delivery

    def _lost(self, report: Lost) -> None:
        work = self._ledger.get(report.number)
        if work is None:
            return
        self._dispatcher.ended(work)
        decided = verdict(work.policy.terms, report, work.delivery.attempt) or Ack()
        if work.lost is not None:  # the child that should have written its obituary died as well
            self.mourn(work, work.lost, work.decided or decided)
        elif report.started and work.terminated is not None and report.limit_seconds is None:
            report.refused = "terminated"
            self.mourn(work, report, Ack())
        elif not fails(report, decided):
            self._close(work, None, decided)
        else:
            self._tell_loss(work, report)
            self.mourn(work, report, decided)

    def _tell_loss(self, work: Work, report: Lost) -> None:
        logger.error(
            "Task handler raised error: %r",
            ending_of(report)[1],
            extra={"data": {"id": work.headers.id, "name": work.headers.task}},
        )

    def _bury(self, work: Work, report: Lost, decided: Verdict) -> None:
        if report.joins:
            logger.error("Task %s has completed a chord; its body cannot be sent.", work.headers.id)
            record = None  # its own result is stored
        else:
            record = self._results.record(
                work.delivery.envelope, work.headers, *ending_of(report), work.policy
            )
        self._close(work, record, decided)

    def _close(self, work: Work, record: Record | None, decided: Verdict) -> None:
        self._ledger.close(work.number)
        self._starts.pop(work.number, None)
        self.recent.note(work.headers, decided)
        self._enter(record, work.delivery, decided)

    def _enter(self, record: Record | None, delivery: Delivery, decided: Verdict) -> None:
        self._entries.append(_Entry(record, delivery, decided))
        if isinstance(decided, Requeue):
            self.returned += 1

    # --- writing down --------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Flush at once, unless more is about to come in."""
        if not self._entries and not self._starts:
            return
        self._idle.clear()
        if not self._dispatcher.short_in_pool or len(self._entries) >= FLUSH_ITEMS:
            self._due.set()
        elif self._timer is None:
            pause = min(max(FLUSH_SECONDS, 3 * self._flush_took), FLUSH_MOST_SECONDS)
            self._timer = asyncio.get_running_loop().call_later(pause, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._due.set()

    async def run(self) -> None:
        """Flush whenever it is time, until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            await self._flush()
            if not self._entries and not self._starts:
                self._idle.set()
            elif not self._due.is_set():
                self._schedule()

    async def drain(self) -> None:
        """Wait until everything is written down."""
        if self._entries or self._starts:
            self._due.set()
        await self._idle.wait()

    async def _flush(self) -> None:
        entries, self._entries = self._entries, []
        starts, self._starts = self._starts, {}
        self._flushing = entries
        if self._link.transport.caps.leases:
            await self._fence(entries)
        began = asyncio.get_running_loop().time()
        await self._store(entries)
        await self._count([entry for entry in entries if entry.part is not None])
        verdicts: list[tuple[Delivery, Verdict]] = [
            (entry.delivery, entry.verdict) for entry in entries if not entry.joins
        ]
        verdicts.extend((delivery, Start()) for delivery in starts.values())
        await self._settle(verdicts)
        self._flush_took = asyncio.get_running_loop().time() - began
        self._flushing = []
        for entry in entries:
            if entry.joins:
                self._join(entry)
        self._on_room()

    def _join(self, entry: _Entry) -> None:
        """Have the body of the chord sent that a task has completed, before its message is settled."""
        assert entry.work is not None
        ended = entry.work
        work = self._ledger.open(entry.delivery, ended.headers, ended.policy)
        work.started = True
        reason = f"Task {ended.headers.id} has completed a chord."
        self.mourn(work, Lost(number=work.number, started=True, reason=reason, joins=True), entry.verdict)
        self._dispatcher.pump()

    async def _fence(self, entries: list[_Entry]) -> None:
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

    async def _store(self, entries: list[_Entry]) -> None:
        records = [entry.record for entry in entries if entry.record is not None]
        if not records or self._backend is None:
            return
        for pause in intervals(_RETRY_START_SECONDS, _RETRY_STEP_SECONDS, _RETRY_MOST_SECONDS):
            try:
                await self._backend.astore(records)
            except BackendUnreachable as exc:
                logger.error(
                    "%s results cannot be stored: %s; trying again in %.1f s, their messages stay ours.",
                    len(records),
                    exc,
                    pause,
                )
                await asyncio.sleep(pause)
            except BackendError as exc:
                await self._store_each(entries, exc)
                return
            else:
                return

    async def _store_each(self, entries: list[_Entry], cause: BackendError) -> None:
        """Find the record that the store refuses; the others must not suffer for it."""
        with_records = [entry for entry in entries if entry.record is not None]
        if len(with_records) > 1:
            for entry in with_records:
                await self._store([entry])
            return
        (entry,) = with_records
        assert entry.record is not None
        logger.error(
            "The result of task %s is refused: %s; its message is kept as a dead letter.",
            entry.record.id,
            cause,
        )
        entry.verdict = DeadLetter(f"Its result was refused by the result store: {cause}", "unstored")

    async def _count(self, entries: list[_Entry]) -> None:
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

    async def _count_each(self, entries: list[_Entry], cause: BackendError) -> None:
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

    async def _settle(self, verdicts: list[tuple[Delivery, Verdict]]) -> None:
        if verdicts:
            settle = functools.partial(self._link.consumer.settle, verdicts)
            await self._insist(settle, f"{len(verdicts)} messages cannot be settled")

    async def _insist(self, call: Callable[[], Awaitable[R]], failing: str) -> R:
        """Ask the broker or the result store until it answers."""
        for pause in intervals(_RETRY_START_SECONDS, _RETRY_STEP_SECONDS, _RETRY_MOST_SECONDS):
            try:
                return await call()
            except (TransportError, BackendUnreachable) as exc:
                logger.warning("%s: %s; trying again in %.1f s.", failing, exc, pause)
                await asyncio.sleep(pause)
        raise AssertionError("the pauses never end")
