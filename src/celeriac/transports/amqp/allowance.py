"""The allowance: how much RabbitMQ may still send us, and what it was told of that."""

from __future__ import annotations

from typing import Final

from celeriac.transports.amqp.topology import Method

_MOST: Final = 65_535  # the protocol's field ends here; more means no limit
_PARTS: Final = 4  # of what may be outstanding: RabbitMQ is told of changes that are larger


class Allowance:
    """What may be outstanding, without what RabbitMQ does not count.

    That is what copies stand for (`custody`), and what has begun and is acknowledged early, until it ends:
    RabbitMQ takes it for settled, and would send the next message for a slot that is taken. The latter only
    where the limit can be changed at any time: a quorum queue heeds it only when a consumer begins, and one
    that ends and begins at every task gets stuck there; where only one consumer may be active, it would hand
    that on to another one.

    Args:
        prefetch: Deliveries that may be outstanding; 0 = no limit.
        shared: Whether RabbitMQ takes a limit for all queues together, at any time; otherwise it takes one
            for each, when we begin to consume.
        alone: Whether a queue is among them of which one consumer at a time gets everything.
    """

    def __init__(self, prefetch: int, *, shared: bool, alone: bool = False) -> None:
        self.prefetch: int = prefetch
        self.shared: bool = shared
        self._alone = alone
        self.forget()

    def forget(self) -> None:
        """Begin with a new connection."""
        self.in_custody: int = 0  # copies
        self.paused: bool = False  # nothing may be sent, which RabbitMQ has no number for
        self._begun: set[int] = set()  # by delivery tag
        self._told: int | None = None

    def note(self, tag: int, *, begun: bool) -> None:
        """Note that a delivery has begun and is acknowledged for that, or has ended."""
        if begun and self.shared and not self._alone:
            self._begun.add(tag)
        else:
            self._begun.discard(tag)

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be sent."""
        return 0 < self.prefetch <= self._filled()

    def is_off(self, queues: int) -> bool:
        """Return whether what RabbitMQ was told is off by more than a quarter of all that we may hold.

        To tell it of every task would be dear where much is held, and would change little.
        """
        if not self.prefetch or self._told is None or self.paused:
            return False
        return abs(self.limit(queues) - self._told) * _PARTS > self.prefetch

    def limit(self, queues: int) -> int:
        """Return the number that RabbitMQ understands, 0 = no limit.

        Args:
            queues: How many are consumed from.
        """
        most = max(1, self.prefetch - self._filled()) if self.prefetch else 0
        if not self.shared and most:  # each has a limit of its own: share it out
            most = -(-most // max(1, queues))
        return most if most <= _MOST else 0

    def is_told(self, queues: int) -> bool:
        """Return whether RabbitMQ was told exactly what it may send."""
        return self._told == self.limit(queues)

    def tell(self, queues: int) -> Method:
        """Return what tells RabbitMQ, and take that for told."""
        self._told = self.limit(queues)
        return ("basic.qos", 0, self._told, self.shared)

    def repeat(self, queues: int) -> Method:
        """Return something that RabbitMQ answers and that changes nothing: what it was told last.

        Args:
            queues: How many are consumed from.
        """
        return ("basic.qos", 0, self.limit(queues) if self._told is None else self._told, self.shared)

    def _filled(self) -> int:
        return self.in_custody + len(self._begun)
