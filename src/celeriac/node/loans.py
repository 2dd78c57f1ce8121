"""Loans: messages that others' code has borrowed, and functions that it has the pool call for them."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from celeriac.execute.verdict import Terms
from celeriac.message import Delivery, Envelope, Props, Report, Requeue, Started, TaskHeaders, Verdict
from celeriac.node.borrower import Borrower
from celeriac.node.dispatch import Dispatcher
from celeriac.node.policy import Policy, Unregistered
from celeriac.node.report import Reporter
from celeriac.node.work import FunctionCall, Ledger, Work


class Loans:
    """Lends messages, on the node's loop.

    1. lend work, and settle it as its borrower says
    2. have the pool call the borrower's functions, first come, first served together with tasks
    3. when the node ends: wait for the functions that were wanted by then, and hand back what is still lent

    Args:
        ledger: The open work; what is lent stays in it, so that it comes only once.
        dispatcher: Lines functions up.
        reporter: Settles.
        on_release: Called when less is lent than before, or more may be.
    """

    def __init__(
        self, ledger: Ledger, dispatcher: Dispatcher, reporter: Reporter, on_release: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._reporter = reporter
        self._on_release = on_release
        self._lent: dict[int, Work] = {}
        self._calls: set[int] = set()  # functions whose end the borrower has not acted on yet
        self._queued: set[int] = set()  # of these, those that have not begun
        self._closing = False
        self.borrower: Borrower | None = None

    def wants(self, work: Work) -> bool:
        """Return whether the messages of a task are lent."""
        return self.borrower is not None and self.borrower.wants(work.policy.task)

    def held(self) -> int:
        """Return how much is lent and shall not keep others from being received.

        Batches are to fill, but not while there are some that cannot begin.
        """
        return 0 if self._queued else len(self._lent)

    def lend(self, work: Work) -> None:
        """Lend work."""
        assert self.borrower is not None
        work.lent = True
        self._lent[work.number] = work
        self.borrower.lend(work)

    def take_back(self, work: Work) -> bool:
        """Stop lending work, for the node to run it; return False when it is not lent any more."""
        work.lent = False
        return self._lent.pop(work.number, None) is not None

    def settle(self, work: Work, decided: Verdict) -> bool:
        """Settle work as its borrower says; return False when it has gone back already."""
        if self._lent.pop(work.number, None) is None:
            return False
        self._reporter.hand_back(work, decided)
        self._on_release()
        return True

    def call(self, name: str, packed: bytes, hears: Callable[[Report], None]) -> bool:
        """Have the pool call a function.

        Args:
            name: Of the function, for people.
            packed: It and its arguments, see `celeriac.execute.function.pack`.
            hears: Called with what the pool reports: that it has begun, and how it has ended, each at most
                once. After the latter `over` has to be called.

        Returns:
            False when the node is ending: what is lent goes back, and the function is not called.
        """
        if self._closing:
            return False
        envelope = Envelope(headers={}, body=b"", properties=Props())
        headers = TaskHeaders(task=name, id=str(uuid.uuid4()))
        work = self._ledger.open(
            Delivery(envelope=envelope, queue=""), headers, Policy(Unregistered, Terms(), None, None)
        )
        number = work.number

        def on_report(report: Report) -> None:
            if number in self._queued:
                self._queued.discard(number)
                self._on_release()
            hears(report)

        work.call = FunctionCall(packed, on_report)
        self._calls.add(number)
        self._queued.add(number)
        self._dispatcher.add(work)
        self._dispatcher.pump()
        return True

    def over(self, report: Report) -> None:
        """Note that the borrower has settled all that it wants to after the end of a function."""
        assert not isinstance(report, Started)
        self._calls.discard(report.number)
        if self._closing:
            self._give_back_at_the_end()

    def close(self) -> None:
        """Lend nothing more, and hand back what is lent as soon as no function is under way."""
        self._closing = True
        self._dispatcher.pump()
        self._give_back_at_the_end()

    def abandon(self) -> None:
        """Hand back what is lent at once: the functions have been stopped."""
        self._closing = True
        self._calls.clear()
        for work in self._lent.values():
            self._reporter.hand_back(work, Requeue())
        self._lent.clear()

    def _give_back_at_the_end(self) -> None:
        if self._calls:
            return
        for work in self._lent.values():
            self._reporter.hand_back(work, Requeue(untouched=True))
        self._lent.clear()
