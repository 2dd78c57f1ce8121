"""The reporter: what the pool reports becomes stored outcomes and settled messages."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Sequence

from celeriac.execute.loss import ending_of
from celeriac.execute.verdict import fails, verdict
from celeriac.locks import Lock
from celeriac.message import (
    Ack,
    DeadLetter,
    Delivery,
    Finished,
    Lost,
    Park,
    Record,
    Report,
    Requeue,
    Start,
    Started,
    Verdict,
)
from celeriac.node.dispatch import Dispatcher
from celeriac.node.herald import Herald
from celeriac.node.keeper import Keeper
from celeriac.node.recent import Recent
from celeriac.node.results import Results
from celeriac.node.scribe import Entry, Scribe
from celeriac.node.work import FunctionCall, Ledger, Work
from celeriac.wire.task import is_alone

logger: logging.Logger = logging.getLogger("celery.worker.request")

FLUSH_ITEMS = 256
FLUSH_SECONDS = 0.002
FLUSH_MOST_SECONDS = 0.01  # when store and broker are slow, fewer and larger flushes serve everybody better
BACKLOG_ITEMS = 4096  # unsettled beyond this, nothing more is received

_MOST_IDS = 20  # in one line of the log
_MOST_OBITUARIES = 3  # children that may die of one before the node records the failure, and no more


class Reporter:
    """Decides from what the pool reports what becomes of the messages, and has it written down in batches.

    1. decide from each report what becomes of its message
    2. flush, when there is enough or nothing more is about to come
    3. have the failures of lost jobs recorded by another child, which can read their bodies: their obituary;
       in the same way a job that has completed a chord has the body sent
    4. say how much is waiting, so that no more is received than can be written down

    Args:
        scribe: Writes down.
        ledger: The open work.
        dispatcher: Told what has ended.
        results: Encodes what no child can.
        herald: Tells monitors.
        keeper: Keeps the locks of unique tasks.
        on_room: Called when something was ended or settled.
    """

    def __init__(
        self,
        scribe: Scribe,
        ledger: Ledger,
        dispatcher: Dispatcher,
        results: Results,
        herald: Herald,
        keeper: Keeper,
        on_room: Callable[[], None],
    ) -> None:
        self._scribe = scribe
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._results = results
        self._herald = herald
        self._keeper = keeper
        self._on_room = on_room
        self._entries: list[Entry] = []
        self._starts: dict[int, Delivery] = {}  # begun, not told to the broker yet
        self._flushing: list[Entry] = []  # on their way
        self._early: list[Entry] = []  # written down, but told only when an earlier run has ended
        self._flush_took = 0.0  # seconds, the latest one
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self.recent: Recent = Recent()
        self.returned: int = 0  # messages that went back to the broker
        self.dead_letters: Counter[str] = Counter()  # by their kind
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

    def add(
        self, record: Record | None, delivery: Delivery, decided: Verdict, frees: Lock | None = None
    ) -> None:
        """Settle a delivery that the pool never had.

        Args:
            record: What to store.
            delivery: The message.
            decided: What becomes of it.
            frees: The lock that its call held, when it ends with that.
        """
        self._enter(record, delivery, decided)
        self._entries[-1].frees = frees
        self._schedule()

    def is_ours(self, work: Work) -> bool:
        """Return whether the broker still counts with us for work under way."""
        return self._scribe.holds(work.delivery)

    def replace(self, work: Work, delivery: Delivery) -> bool:
        """Let a delivery take the place of the one that work under way has come with, if that is void.

        Returns:
            False when it is not: then the delivery is of another message, sent under the same id.
        """
        if self.is_ours(work):
            return False
        work.delivery = delivery
        if work.started and not work.policy.terms.acks_late and work.lost is None:
            self._starts[work.number] = delivery
            self._schedule()
        return True

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
        if work.call is not None:
            work.call.hears(report)
            return False
        self._starts.pop(report.number, None)
        decided = work.decided
        if decided is None:
            work.policy.note(report.runtime)
            if (tally := work.policy.tally) is not None:
                tally.ran(report.kind, report.started_at - work.ready_at, report.runtime)
            decided = verdict(work.policy.terms, report, work.delivery.attempt) or Ack()
        self._enter(report.record, work.delivery, decided)
        self._unlock(work, decided, again=report.kind == "retry")
        if report.part is not None:
            self._entries[-1].part, self._entries[-1].work = report.part, work
        else:
            self.recent.note(work.headers, work.delivery.envelope, decided)
        if self._herald.on:
            if not work.started and work.lost is None:
                self._herald.started(work, report.started_at)
            self._announce(work, report)
        if work.witnessed and work.lost is None:
            self._entries[-1].seen = work, report
        return True

    def _announce(self, work: Work, report: Finished) -> None:
        """Have an end told when it is written down, but a retry at once: its next run is on its way."""
        told = self._herald.ending(work, report)
        if told is not None and report.kind == "retry":
            self._herald.stream.tell(told)
        else:
            self._entries[-1].told, self._entries[-1].after = told, work.after

    def _started(self, report: Started) -> None:
        work = self._ledger.get(report.number)
        if work is None or work.lost is not None:
            return
        if work.call is not None:
            work.call.hears(report)
            return
        if not work.started:
            work.started = True
            self._herald.started(work, report.at)
            if work.witnessed and self._herald.witness is not None:
                self._herald.witness.started(work, report)
            if work.lock is not None:
                self._keeper.began(work)
        if isinstance(verdict(work.policy.terms, report), Start):
            self._starts[report.number] = work.delivery

    def _lost(self, report: Lost) -> None:
        work = self._ledger.get(report.number)
        if work is None:
            return
        self._dispatcher.ended(work)
        if work.call is not None:
            self._lost_call(work, work.call, report)
            return
        decided = verdict(work.policy.terms, report, work.delivery.attempt) or Ack()
        if work.lost is not None:  # the child that should have written its obituary died as well
            self.mourn(work, work.lost, work.decided or decided)
        elif report.started and work.terminated is not None and report.limit_seconds is None:
            report.refused = "terminated"
            self.mourn(work, report, Ack())
        elif not fails(report, decided):
            self._close(work, None, decided)
        else:
            if not work.started:
                self._herald.started(work)
            if (tally := work.policy.tally) is not None:
                tally.endings["lost"] += 1
            self._tell_loss(work, report)
            if work.witnessed and self._herald.witness is not None:
                self._herald.witness.lost(work, report)
            self.mourn(work, report, decided)

    def _lost_call(self, work: Work, call: FunctionCall, report: Lost) -> None:
        if not report.started and not report.stopped:
            self._dispatcher.add_first(work)  # its child died of something else
            return
        self._ledger.close(work.number)
        call.hears(report)

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
        self.recent.note(work.headers, work.delivery.envelope, decided)
        self._enter(record, work.delivery, decided)
        self._unlock(work, decided)
        if work.lost is not None and not isinstance(decided, Requeue):
            self._entries[-1].told = self._herald.loss(work)

    def _enter(self, record: Record | None, delivery: Delivery, decided: Verdict) -> None:
        self._entries.append(Entry(record, delivery, decided))
        if isinstance(decided, Requeue):
            self.returned += 1

    def _unlock(self, work: Work, decided: Verdict, *, again: bool = False) -> None:
        """Note at the latest entry what becomes of the lock of its work."""
        if work.lock is None:
            return
        if again or isinstance(decided, (Requeue, Park)):
            self._entries[-1].keeps = work.lock
        else:
            self._entries[-1].frees = work.lock

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
        began = asyncio.get_running_loop().time()
        await self._scribe.write(entries, starts.values())
        self._flush_took = asyncio.get_running_loop().time() - began
        self._flushing = []
        self._tell([*entries, *self._early])
        for entry in entries:
            if entry.seen is not None and self._herald.witness is not None:
                self._herald.witness.ended(*entry.seen)
            if entry.joins:
                self._join(entry)  # only then it is done: should it come again, it is to be joined again
            elif entry.work is not None:
                self.recent.note(entry.work.headers, entry.delivery.envelope, entry.verdict)
            if not entry.joins and isinstance(entry.verdict, DeadLetter):
                self.dead_letters[entry.verdict.kind] += 1
        self._on_room()

    def _tell(self, entries: Sequence[Entry]) -> None:
        """Tell monitors what has ended, but no retry before the run that has sent it.

        That one's child may be slow to say so, and monitors take what they hear last for the state.
        """
        self._early = []
        for entry in entries:
            if entry.told is None:
                continue
            if entry.after and self._ledger.get(entry.after) is not None:
                self._early.append(entry)
            else:
                self._herald.stream.tell(entry.told)

    def _join(self, entry: Entry) -> None:
        """Have the body of the chord sent that a task has completed, before its message is settled."""
        assert entry.work is not None
        ended = entry.work
        work = self._ledger.open(entry.delivery, ended.headers, ended.policy)
        work.started = True
        work.lock = None  # it is free already
        reason = f"Task {ended.headers.id} has completed a chord."
        self.mourn(work, Lost(number=work.number, started=True, reason=reason, joins=True), entry.verdict)
        self._dispatcher.pump()
