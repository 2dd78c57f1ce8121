"""Taking back what a node has taken on, and ending what it runs."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

from celeriac.message import TaskHeaders
from celeriac.node.admit import revoked
from celeriac.node.dispatch import Dispatcher
from celeriac.node.intake import Intake
from celeriac.node.refusals import Refusals
from celeriac.node.work import Ledger, Work
from celeriac.ports import Pool

logger: logging.Logger = logging.getLogger("celery.worker.control")


class Revoker:
    """Acts on a revocation at once, wherever the work is, and takes back what shall not begin here.

    1. what waits for its time, its turn or a token, or lies unread before a child, is refused
    2. what runs is left alone, or signalled

    Args:
        ledger: The open work.
        dispatcher: Has what waits for its turn.
        intake: Has what waits for its time.
        refusals: Tell what is refused.
        pool: Runs the work.
    """

    def __init__(
        self, ledger: Ledger, dispatcher: Dispatcher, intake: Intake, refusals: Refusals, pool: Pool
    ) -> None:
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._intake = intake
        self._refusals = refusals
        self._pool = pool

    def revoke(self, concerns: Callable[[TaskHeaders], bool], signum: int | None) -> list[str]:
        """Take back what is concerned and return the ids of what was running and has been signalled.

        Args:
            concerns: Says whether a task is.
            signum: What ends those that run; None: they go on.
        """
        works = [work for work in self._ledger if work.lost is None and concerns(work.headers)]
        for work in self._take_back(works):
            self._ledger.close(work.number)
            self._refusals.refuse(work.delivery, revoked(work.headers))
        ended: list[str] = []
        if signum is not None:
            for work in works:
                if work.submitted:
                    self._end(work, signum)
                    ended.append(work.headers.id)
        self._dispatcher.pump()
        return ended

    def take_back(self, concerns: Callable[[Work], bool]) -> list[Work]:
        """Return what is concerned and has not begun, in the order of its coming; it stays in the ledger.

        Args:
            concerns: Says whether work is.
        """
        back = self._take_back([work for work in self._ledger if work.lost is None and concerns(work)])
        self._dispatcher.pump()
        return back

    def _take_back(self, works: list[Work]) -> list[Work]:
        """Take work from wherever it waits, but for what has begun."""
        if not works:
            return []
        running = {started.number for started in self._pool.running()}
        unread = {work.number for work in works if work.submitted and work.number not in running}
        if unread:
            self._recall(unread)
        back = [work for work in works if work.waits and self._ledger.get(work.number) is work]
        for work in back:
            self._dispatcher.drop(work)
            self._intake.drop(work)
        return back

    def _recall(self, concerned: set[int]) -> None:
        """Take unread work back from the children; what is not concerned waits at the head of the line."""
        others = []
        for number in self._pool.recall():
            work = self._ledger.get(number)
            if work is not None:
                self._dispatcher.ended(work)
                if number not in concerned:
                    others.append(work)
        for work in reversed(others):
            self._dispatcher.add_first(work)

    def _end(self, work: Work, signum: int) -> None:
        work.terminated = signum
        logger.info("Terminating %s (%s)", work.headers.id, signal.Signals(signum).name)
        self._pool.kill(work.number, signum)
        self._refusals.tell_terminated(work, signum)
