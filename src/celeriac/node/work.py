"""Work: a delivery that was taken in, until it is settled; and the ledger of all of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from celeriac.locks import Lock, from_header
from celeriac.message import Delivery, Job, Lost, Report, TaskHeaders, Verdict
from celeriac.node.policy import Policy
from celeriac.uniqueness import UNTIL_STARTED


class FunctionCall(NamedTuple):
    """A function that the pool calls for others' code in the node."""

    packed: bytes
    hears: Callable[[Report], None]


class Work:
    """One task that this node has taken on.

    Args:
        number: The node's own, under which pool and ledger know it.
        delivery: The message.
        headers: Its headers.
        policy: Its kind.
    """

    __slots__ = (
        "after",
        "call",
        "decided",
        "delivery",
        "headers",
        "lent",
        "lock",
        "lost",
        "number",
        "obituaries",
        "policy",
        "ready_at",
        "short",
        "started",
        "submitted",
        "tells",
        "terminated",
        "witnessed",
    )

    def __init__(self, number: int, delivery: Delivery, headers: TaskHeaders, policy: Policy) -> None:
        self.number: int = number
        self.delivery: Delivery = delivery
        self.headers: TaskHeaders = headers
        self.policy: Policy = policy
        self.after: int = 0  # the number of an earlier run that has sent it, as a retry; it may still go on
        self.ready_at: float = 0.0  # epoch seconds from which on it could have begun here
        self.submitted: bool = False  # the pool has it
        self.short: bool = False  # it was handed over as a short one
        self.started: bool = False  # it was seen to begin
        self.lost: Lost | None = None  # a child has died of it: what is still to be run is its obituary
        self.obituaries: int = 0  # how many children were asked for one
        self.tells: bool = False  # somebody wants to know what it returns
        self.witnessed: bool = False  # others' code wants to see what becomes of it
        self.terminated: int | None = None  # the signal by which somebody has ended it
        self.decided: Verdict | None = None  # what becomes of the message after the obituary
        self.lent: bool = False  # others' code has it, and says what becomes of it
        self.call: FunctionCall | None = None  # it is no message, but a function of others' code
        self.lock: Lock | None = lock_of(headers, policy)  # that it holds, as far as we know

    @property
    def frees_at_start(self) -> bool:
        """Whether its lock, if it has one, is to be free before it begins."""
        return (self.headers.lock or "").startswith(UNTIL_STARTED)

    @property
    def waits(self) -> bool:
        """Whether it is a message that waits here, and can be let go of."""
        return not self.submitted and not self.lent and self.call is None

    @property
    def joins(self) -> bool:
        """Whether it has ended and completed a chord, and all that is left is to send the body.

        That may be done any number of times, and once has to be, whatever becomes of its message.
        """
        return self.lost is not None and self.lost.joins

    @property
    def is_owed(self) -> bool:
        """Whether there is no message any more that would bring it back, to us or to another node.

        For brokers to which an acknowledgement when it begins is the end of a message.
        """
        return self.joins or (self.lost is not None and self.started and not self.policy.terms.acks_late)

    @property
    def is_short(self) -> bool:
        """Whether it may wait behind others at a slot.

        An obituary does not, as its caller has waited enough; nor what may expire there, where nobody looks.
        """
        return self.policy.short and self.lost is None and self.headers.expires is None

    def job(self, hostname: str) -> Job:
        """Return what the pool is given."""
        delivery, headers = self.delivery, self.headers
        envelope, limits = delivery.envelope, headers.timelimit
        properties = envelope.properties
        hard, soft = (None, None) if limits is None else limits
        policy = self.policy
        return Job(
            number=self.number,
            id=headers.id,
            task=headers.task,
            headers=envelope.headers,
            body=envelope.body,
            content_type=envelope.content_type,
            content_encoding=envelope.content_encoding,
            delivery_info={
                "exchange": delivery.exchange,
                "routing_key": delivery.routing_key,
                "priority": properties.priority,
                "redelivered": delivery.redelivered,
            },
            reply_to=properties.reply_to,
            correlation_id=properties.correlation_id,
            properties=properties.extra
            if properties.timestamp is None
            else {**properties.extra, "timestamp": properties.timestamp},
            hostname=hostname,
            attempt=delivery.attempt,
            soft_limit_seconds=policy.soft_seconds if soft is None else soft,
            hard_limit_seconds=policy.hard_seconds if hard is None else hard,
            short=self.short,
            lost=self.lost,
            tells=self.tells,
            function=None if self.call is None else self.call.packed,
        )


def lock_of(headers: TaskHeaders, policy: Policy | None) -> Lock | None:
    """Return the lock that a message says its call holds.

    Args:
        headers: The message's.
        policy: The kind of task; None when nobody knows it: then the lock can only be freed.
    """
    if headers.lock is None:
        return None
    return from_header(headers.lock, headers.id, 0.0 if policy is None else policy.task.lock_seconds)


class Ledger:
    """Everything that was taken in and is not settled, by number.

    Args:
        on_closed: Called with each work that is struck out and has a limit or a lock.
    """

    def __init__(self, on_closed: Callable[[Work], None]) -> None:
        self._on_closed = on_closed
        self._numbers = itertools.count(1)
        self._work: dict[int, Work] = {}
        self._of_task: dict[str, Work] = {}  # by task id: the latest one

    def open(self, delivery: Delivery, headers: TaskHeaders, policy: Policy) -> Work:
        """Enter a delivery under a new number."""
        work = Work(next(self._numbers), delivery, headers, policy)
        if headers.retries and (earlier := self._of_task.get(headers.id)) is not None:
            work.after = earlier.number if (earlier.headers.retries or 0) < headers.retries else earlier.after
        self._work[work.number] = self._of_task[headers.id] = work
        return work

    def get(self, number: int) -> Work | None:
        """Return the work of a number, if it is open."""
        return self._work.get(number)

    def close(self, number: int) -> Work | None:
        """Strike out a number and return its work, if it was open."""
        work = self._work.pop(number, None)
        if work is None:
            return None
        if self._of_task.get(work.headers.id) is work:
            del self._of_task[work.headers.id]
        policy = work.policy
        if policy.concurrency_limit is not None or policy.shares_rate or work.lock is not None:
            self._on_closed(work)
        return work

    def of_task(self, task_id: str) -> Work | None:
        """Return the open work of a task id, the latest when there are several."""
        return self._of_task.get(task_id)

    def __len__(self) -> int:
        """Return how much is open."""
        return len(self._work)

    def __iter__(self) -> Iterator[Work]:
        """Yield what is open."""
        return iter(list(self._work.values()))
