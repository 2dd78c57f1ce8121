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
    key: str = ""  # what it takes turns by
    round: int | None = None  # in which it is served, as long as it waits for its turn
    handed: int = 0  # how many times a worker has had it
    redelivered: bool = False
    lost: bool = False
    started: bool = False


class Turns(msgspec.Struct):
    """Where the messages with a key of one queue and priority are, see `celeriac.rounds`."""

    now: int = 0  # the round under way
    plain: int = -1  # that of the last message without a key which was served
    last: dict[str, int] = {}  # that of the last message of each key
    doubtful: bool = False  # whether messages have come into it at a moment that only the broker knows

    def join(self, copy: Copy) -> None:
        """Give a message the first round that is not over in which its key has none yet."""
        copy.round = self.last[copy.key] = max(self.now, self.last.get(copy.key, -1) + 1)

    def serve(self, ready: list[Copy]) -> Copy:
        """Return what comes next of some messages, and count it as served."""
        keyed = [copy for copy in ready if copy.round is not None]
        plain = [copy for copy in ready if copy.round is None]
        own = max(self.now, self.plain + 1)
        first = min(keyed, key=lambda copy: (copy.round, copy.order)) if keyed else None
        if first is None or first.round is None or (plain and own < first.round):
            self.now = self.plain = own
            return min(plain, key=lambda copy: copy.order)
        self.now = first.round
        return first


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
        self._turns: dict[tuple[str, int], Turns] = {}  # where messages with a key are ready
        self._leases = leases
        self._orders = itertools.count(1)

    def publish(
        self, text: str, queue: str, priority: int, delay_seconds: float = 0.0, key: str = ""
    ) -> None:
        """Put a message into line, or park it until it is due."""
        copy = Copy(text=text, queue=queue, priority=priority, key=key, order=next(self._orders))
        if delay_seconds:
            self.parked.append((delay_seconds, copy))
        else:
            self._join(copy)

    def in_line(self, queue: str, high_first: bool = True) -> list[Copy]:
        """Return what is ready in a queue, in the order in which it has to be served."""
        line: list[Copy] = []
        for priority in sorted({c.priority for c in self.ready if c.queue == queue}, reverse=high_first):
            ready = self._ready(queue, priority)
            now = self._turns.get((queue, priority))
            if now is None:
                line += sorted(ready, key=lambda copy: copy.order)
                continue
            turns = Turns(now=now.now, plain=now.plain)
            while ready:
                line.append(turns.serve(ready))
                ready.remove(line[-1])
        return line

    def doubt(self) -> None:
        """Note that somebody may have taken messages, and may give them back."""
        for turns in self._turns.values():
            turns.doubtful = True

    def doubtful(self, queue: str) -> bool:
        """Return whether the order of a queue is not known."""
        return any(turns.doubtful for (name, _), turns in self._turns.items() if name == queue)

    def hand_out(self, node: str, copy: Copy) -> None:
        """Have a node hold a message that was ready."""
        place = (copy.queue, copy.priority)
        if (turns := self._turns.get(place)) is not None:
            turns.serve([copy])
        self.ready.remove(copy)
        copy.round = None
        if not any(other.round is not None for other in self._ready(*place)):
            self._turns.pop(place, None)  # nobody with a key waits: a new day
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
                copy.handed = 1 if willing else copy.handed
                self._join(copy)
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
        for left, copy in self.parked:
            if left <= seconds:
                self._join(copy)
                if copy.key:  # really it joins when somebody receives
                    self._turns[copy.queue, copy.priority].doubtful = True
        self.parked = [(left - seconds, copy) for left, copy in self.parked if left > seconds]

    def _ready(self, queue: str, priority: int) -> list[Copy]:
        return [copy for copy in self.ready if (copy.queue, copy.priority) == (queue, priority)]

    def _join(self, copy: Copy) -> None:
        """Put a message at the end of its line, or of its key's."""
        self.ready.append(copy)
        if copy.key:
            self._turns.setdefault((copy.queue, copy.priority), Turns()).join(copy)

    def _back(self, copy: Copy, *, handed: int) -> None:
        copy.handed = handed
        self.ready.append(copy)
