"""An outage: what becomes of work under way when the connection to the broker was lost."""

from __future__ import annotations

import logging
import signal

import msgspec

from celeriac.message import Delivery
from celeriac.node.dispatch import Dispatcher
from celeriac.node.work import Ledger, Work
from celeriac.ports import Pool

logger: logging.Logger = logging.getLogger("celery.worker.consumer.consumer")


class OutagePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a lost connection means for running tasks, where the broker takes their messages back."""

    cancel_running: bool = False  # kill those that are acknowledged late: they will run again
    fetch_less: bool = True  # until those that go on have ended
    least_prefetch: int = 1  # messages, even if all slots are taken


class Outage:
    """Keeps a node that was cut off from doing, or fetching, what others do now.

    Only for brokers that hand out anew what a lost connection held (RabbitMQ); leases outlive connections.

    1. end running tasks that are acknowledged late, when that is wished
    2. fetch less while tasks go on whose messages do not count at the broker any more

    Args:
        policy: What is wished.
        pool: Runs the tasks.
        ledger: The open work.
        dispatcher: Told what has ended.
    """

    def __init__(self, policy: OutagePolicy, pool: Pool, ledger: Ledger, dispatcher: Dispatcher) -> None:
        self._policy = policy
        self._pool = pool
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._stranded: dict[int, Delivery] = {}  # by the numbers of work that goes on: with what it came

    def begin(self) -> None:
        """Note that the connection was lost; what had not begun is not in the ledger any more."""
        if self._policy.cancel_running:
            for work in self._ledger:
                self._cancel(work)
        if self._policy.fetch_less:
            self._stranded = {work.number: work.delivery for work in self._ledger}

    def announce(self, prefetch: int) -> None:
        """Say what is fetched from now on, when the broker is back."""
        reduced = self.limited(prefetch)
        if reduced < prefetch:
            logger.info(
                "Temporarily reducing the prefetch count to %s to avoid over-fetching since %s tasks are "
                "currently being processed.\n"
                "The prefetch count will be gradually restored to %s as the tasks complete processing.",
                reduced,
                len(self._stranded),
                prefetch,
            )

    @property
    def over(self) -> bool:
        """Whether nothing goes on that was under way when the connection was lost."""
        return not self._stranded

    def limited(self, prefetch: int) -> int:
        """Return how many deliveries may be outstanding, of this many without an outage; 0 = no limit."""
        if not self._stranded or not prefetch:
            return prefetch
        still = {number: came for number, came in self._stranded.items() if self._is_stranded(number, came)}
        if self._stranded and not still:
            logger.info(
                "Resuming normal operations following a restart.\n"
                "Prefetch count has been restored to the maximum of %s",
                prefetch,
            )
        self._stranded = still
        least = self._policy.least_prefetch
        return min(prefetch, max(least, prefetch - least * len(still)))

    def _is_stranded(self, number: int, came: Delivery) -> bool:
        """Return whether work goes on whose message has not come again: that would count at the broker."""
        work = self._ledger.get(number)
        return work is not None and work.delivery is came

    def _cancel(self, work: Work) -> None:
        """End a running task whose message the broker gives to somebody else now, or to us again."""
        if not work.policy.terms.acks_late or work.lost is not None:
            return
        if not self._pool.kill(work.number, signal.SIGKILL):
            return  # it is a thread, and goes on
        self._ledger.close(work.number)
        self._dispatcher.ended(work)
        logger.warning(
            "Task %s[%s] is cancelled: the connection to the broker was lost, and its message runs again.",
            work.headers.task,
            work.headers.id,
        )
