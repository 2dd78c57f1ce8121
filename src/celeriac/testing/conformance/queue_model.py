"""What a broker's queues owe, in a few lines: every message is ready, parked, held or dead, or it is gone."""

from __future__ import annotations

import itertools

import msgspec

from celeriac.message import Ack, DeadLetter, Park, Reject, Requeue, Start, Verdict

PARKED_SECONDS = 60.0  # how long what is parked has to wait


class Copy(msgspec.Struct, eq=False, kw_only=True):
    """One message as it should be known to the broker."""

    text: str
    queue: str
    priority: int
    order: int
    handed: int = 0  # how many times a worker has had it
    redelivered: bool = False
    lost: bool = False
    started: bool = False


class QueueModel:
    """The queues of a broker without any machinery.

    Args:
        leases: Whether what had begun on a dead node is told as lost; else it is gone when it begins.
    """

    def __init__(self, *, leases: bool) -> None:
        self.ready: list[Copy] = []
        self.parked: list[tuple[float, Copy]] = []  # with the seconds that are left
        self.held: dict[str, list[Copy]] = {}  # by node
        self.dead: list[Copy] = []
        self._leases = leases
        self._orders = itertools.count(1)

    def publish(self, text: str, queue: str, priority: int, delay_seconds: float = 0.0) -> None:
        """Put a message into line, or park it until it is due."""
        copy = Copy(text=text, queue=queue, priority=priority, order=next(self._orders))
        self.parked.append((delay_seconds, copy))
        self.pass_time(0.0)

    def in_line(self, queue: str, high_first: bool = True) -> list[Copy]:
        """Return what is ready in a queue, in the order in which it has to be served."""
        found = [copy for copy in self.ready if copy.queue == queue]
        return sorted(found, key=lambda copy: (-copy.priority if high_first else copy.priority, copy.order))

    def hand_out(self, node: str, copy: Copy) -> None:
        """Have a node hold a message that was ready."""
        self.ready.remove(copy)
        copy.handed += 1
        self.held[node].append(copy)

    def settle(self, node: str, copy: Copy, verdict: Verdict) -> None:
        """Carry out a verdict on what a node holds."""
        if isinstance(verdict, Start):
            copy.started = True
            return
        self.held[node].remove(copy)
        copy.started = False
        match verdict:
            case Ack() | Reject():
                pass
            case Requeue(untouched=True):
                self._back(copy, handed=copy.handed - 1)
            case Requeue(willing=willing):
                copy.redelivered, copy.order = True, next(self._orders)
                self._back(copy, handed=1 if willing else copy.handed)
            case Park():
                copy.handed -= 1
                self.parked.append((PARKED_SECONDS, copy))
            case DeadLetter():
                self.dead.append(copy)

    def end(self, node: str, *, died: bool) -> None:
        """Take back what a node holds: it left in good order, or it died."""
        held, self.held[node] = self.held[node], []
        for copy in held:
            if copy.started and not self._leases:
                continue
            copy.lost = copy.lost or copy.started
            copy.redelivered = copy.redelivered or died or copy.lost
            self._back(copy, handed=copy.handed if died or copy.lost else copy.handed - 1)
            copy.started = False

    def pass_time(self, seconds: float) -> None:
        """Put into line what is due by then."""
        self.ready.extend(copy for left, copy in self.parked if left <= seconds)
        self.parked = [(left - seconds, copy) for left, copy in self.parked if left > seconds]

    def _back(self, copy: Copy, *, handed: int) -> None:
        copy.handed = handed
        self.ready.append(copy)
