"""What one queue of the memory transport holds, in the order in which it is handed out."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Any, NamedTuple

from celeriac import rounds
from celeriac.clock import Clock
from celeriac.letters import MOST_LETTERS
from celeriac.message import DeadLetter
from celeriac.queues import Queue
from celeriac.transports.terms import Terms


class Message:
    """One message in one queue, whatever state it is in."""

    __slots__ = (
        "blob",
        "exchange",
        "handed",
        "key",
        "lost",
        "order",
        "queue",
        "redelivered",
        "routing_key",
        "terms",
    )

    def __init__(self, order: int, queue: str, blob: bytes, exchange: str, key: str, terms: Terms) -> None:
        self.order: int = order
        self.queue: str = queue
        self.blob: bytes = blob
        self.exchange: str = exchange
        self.routing_key: str = key
        self.terms: Terms = terms
        self.key: str | None = None  # what it takes turns by
        self.handed: int = 0
        self.redelivered: bool = False
        self.lost: bool = False


class Buried(NamedTuple):
    """A dead letter."""

    message: Message
    verdict: DeadLetter
    at: float  # epoch seconds
    node: str


class _Line:
    """The messages of one priority that have a key, and where their rounds have come to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, int, Message]] = []
        self._now = 0
        self._plain: int | None = None
        self._last: dict[str, int] = {}

    def join(self, key: str, message: Message) -> None:
        number = self._last[key] = rounds.join(self._now, self._last.get(key))
        heapq.heappush(self.waiting, (number, message.order, message))

    def comes_first(self, *, alone: bool) -> bool:
        """Return whether the next message is one with a key, and count it as served; or the other."""
        before = self._now
        keyed, _, self._now, self._plain = rounds.next_ones(
            before, self._plain, [self.waiting[0][0]], 0 if alone else 1, 1
        )
        if self._now > before:
            self._last = {key: number for key, number in self._last.items() if number >= self._now}
        return keyed == 1


class Shelf:
    """What one queue holds: ready messages by priority and age, parked ones by the moment they are due."""

    def __init__(self, queue: Queue, clock: Clock) -> None:
        self._clock = clock
        self.queue = queue
        self.parked: list[tuple[float, int, Message]] = []
        self.dead: deque[Buried] = deque(maxlen=MOST_LETTERS)
        self.consumers: set[Any] = set()  # Any: of the broker's `Holder`, whose module imports this one
        self._plain: list[tuple[int, int, Message]] = []
        self._lines: dict[int, _Line] = {}  # by priority; none is empty

    def put(self, message: Message, not_before: float | None = None) -> None:
        """Put a message into line, or away until its time."""
        if not_before is not None and not_before > self._clock.time():
            heapq.heappush(self.parked, (not_before, message.order, message))
        elif message.key is None:
            self.put_back(message)
        else:
            self._lines.setdefault(message.terms.priority, _Line()).join(message.key, message)

    def put_back(self, message: Message) -> None:
        """Put a message where it was; one with a key has had its turn."""
        heapq.heappush(self._plain, (-message.terms.priority, message.order, message))

    def take(self, now: float) -> Message | None:
        """Return the next message that is due and has not expired."""
        while self.parked and self.parked[0][0] <= now:
            self.put(heapq.heappop(self.parked)[2])
        while self._plain or self._lines:
            message = self._pop()
            if not message.terms.expired(now):
                return message
        return None

    def ready(self) -> int:
        """Return how many messages anybody may receive now."""
        return len(self._plain) + sum(len(line.waiting) for line in self._lines.values())

    def oldest(self, limit: int) -> list[Message]:
        """Return the first of the ready messages, by their numbers."""
        lines = [self._plain, *(line.waiting for line in self._lines.values())]
        found = heapq.nsmallest(limit, (entry[1:] for line in lines for entry in line))
        return [message for _, message in found]

    def clear(self) -> int:
        """Throw away what waits and return how many messages that were."""
        count = self.ready() + len(self.parked)
        self._plain.clear()
        self._lines.clear()
        self.parked.clear()
        return count

    def _pop(self) -> Message:
        plain = -self._plain[0][0] if self._plain else None
        keyed = max(self._lines, default=None)
        if keyed is None or (plain is not None and plain > keyed):
            return heapq.heappop(self._plain)[2]
        line = self._lines[keyed]
        if not line.comes_first(alone=plain != keyed):
            return heapq.heappop(self._plain)[2]
        message = heapq.heappop(line.waiting)[2]
        if not line.waiting:
            del self._lines[keyed]
        return message
