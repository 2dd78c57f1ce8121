"""The port of a broker: what a transport owes, and what it can do by itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from celeriac.bursts import Bursts
from celeriac.letters import EVERYTHING, Letter, Wanted
from celeriac.locks import Locks
from celeriac.message import Delivery, Outgoing
from celeriac.pauses import Pauses
from celeriac.permits import Permits
from celeriac.ports.consumer import Consumer, ConsumeSpec
from celeriac.ports.fanout import Fanout
from celeriac.revocations import Revocations
from celeriac.timetable import Timetable


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """What a transport can do by itself."""

    native_delay: bool = False  # honours `Outgoing.not_before` and `Park`
    leases: bool = False  # a dead worker's deliveries return when its lease ends, started ones marked `lost`
    hands_over: bool = False  # what it hands over may have been asked for long ago: see `Unheard`
    high_priority_first: bool = True  # False on Redis: 0 is served first there, as Celery has it
    across_processes: bool = True  # False for memory
    searchable: bool = False  # `whereabouts` finds every message that is there
    permits: bool = False  # it can keep the permits of limited tasks, locks of unique ones, …
    revocations: bool = False  # it remembers what is revoked, for workers that are not there at the moment
    timetable: bool = False  # it can keep the timetable of periodic tasks
    once: bool = False  # honours `Outgoing.once`, in one step with taking the message
    ages: bool = False  # `oldest` can look into queues
    rounds: bool = False  # messages with a key take turns by it, see `celeriac.rounds`
    gossip: bool = False  # nodes may hear each other all the time: a broadcast costs only those who listen


class Producer(Protocol):
    """Sends messages.

    Safe for threads; lazy (no connection before the first send); after a fork the child makes connections
    of its own and leaves the parent's alone.
    """

    def send(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """Return when the broker has the whole batch, in one round trip where the protocol allows.

        Args:
            batch: What to send; order is kept within a queue.
            deadline: Budget in seconds for connect, write and confirm together.

        Raises:
            BrokerUnreachable: Nobody answers, or we are refused; names the URL, password hidden.
            PublishTimeout: The budget ran out; the messages may or may not have arrived.
            TransportError: The broker refused the batch.
        """
        ...

    async def asend(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        """Do the same without blocking the caller's loop."""
        ...

    def close(self) -> None:
        """Close the connections of this process. Sending afterwards opens new ones."""
        ...


class Graveyard(Protocol):
    """The dead letters of a transport, queue by queue. How many a queue keeps is bounded; the oldest go."""

    def find(self, queue: str, wanted: Wanted = EVERYTHING, limit: int = 100) -> list[Letter]:
        """Return what is wanted of a queue's dead letters, newest first, without removing anything."""
        ...

    def retry(self, queue: str, ids: Collection[str]) -> list[str]:
        """Send letters to the end of their queue again, as they were first sent: attempts count anew.

        Each is moved in one step, so that nobody who calls at the same time, and no crash of this process,
        has a letter sent twice or lost; see the transport where it cannot hold that.

        Returns:
            The ids of those that were sent; others were not there any more.
        """
        ...

    def purge(self, queue: str, ids: Collection[str]) -> list[str]:
        """Remove letters for good and return the ids of those that were there."""
        ...


class Transport(Protocol):
    """A kind of broker at one address."""

    caps: Caps
    address: str  # for people: the URL without its password, or the path of the file

    def producer(self) -> Producer:
        """Return a producer; cheap, no I/O."""
        ...

    async def consumer(self, spec: ConsumeSpec) -> Consumer:
        """Connect, declare the queues and return their consumer.

        Raises:
            BrokerUnreachable: Nobody answers, or the broker refuses us.
        """
        ...

    def fanout(self) -> Fanout:
        """Return the way to send and hear broadcasts; cheap, no I/O."""
        ...

    def purge(self, queue: str) -> int:
        """Throw away what waits in a queue and return how many messages that were."""
        ...

    def size(self, queue: str) -> int:
        """Return how many messages wait in a queue (those leased by workers not counted)."""
        ...

    def ready(self, queue: str) -> int:
        """Return how many of them anybody may receive now; those that wait for their time do not count."""
        ...

    def oldest(self, queue: str) -> float | None:
        """Return since when the message waits that has waited longest of the ready ones, in epoch seconds.

        That is when it was sent, or the time that it was sent for. Those that do not say when they were sent
        (Celery's do not) are passed over.

        Returns:
            None when there is none, or none that says so; always without ``caps.ages``.
        """
        ...

    def parked(self, queue: str, limit: int) -> list[tuple[Delivery, float]]:
        """Return the first messages that wait in a queue for their time, with that in epoch seconds.

        They stay where they are, and cannot be settled.
        """
        ...

    def reap(self) -> int:
        """Take over what dead nodes held, as every consumer does when it renews.

        Returns:
            How many messages went back to their queues; 0 where the broker does all that by itself.
        """
        ...

    def graveyard(self) -> Graveyard:
        """Return the dead letters; cheap, no I/O."""
        ...

    def permits(self) -> Permits:
        """Return what keeps the permits of limited tasks; cheap, no I/O. Only with ``caps.permits``."""
        ...

    def locks(self) -> Locks:
        """Return what keeps the locks of unique tasks; cheap, no I/O. Only with ``caps.permits``."""
        ...

    def bursts(self) -> Bursts:
        """Return what keeps the bursts of debounced tasks; cheap, no I/O. Only with ``caps.permits``."""
        ...

    def revocations(self) -> Revocations:
        """Return what remembers revocations; cheap, no I/O. Only with ``caps.revocations``."""
        ...

    def timetable(self, owner: str) -> Timetable:
        """Return what keeps the timetable of an app's periodic tasks; cheap, no I/O.

        Args:
            owner: Whose; others' are apart from it.

        Raises:
            TransportError: It keeps none (``caps.timetable``).
        """
        ...

    def pauses(self) -> Pauses:
        """Return what remembers paused queues; cheap, no I/O."""
        ...

    def whereabouts(self, task_id: str) -> str | None:
        """Return what the broker can tell of a task's message, at no cost to those who send and consume.

        Returns:
            QUEUED, SCHEDULED, RECEIVED (leased), STARTED or REJECTED (a dead letter); None when it has no
            such message, or is no broker that can be searched.
        """
        ...

    def close(self) -> None:
        """Close what the transport itself holds."""
        ...


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker's server tells of itself."""

    server: str  # its kind and version
    clock: float  # epoch seconds
    evicts: str | None = None  # how it throws data away when its memory is full; None when it does not


@runtime_checkable
class TellsVitals(Protocol):
    """What a transport has besides when its server can be asked how it is."""

    def vitals(self) -> Vitals:
        """Ask the server.

        Raises:
            TransportError: It cannot be reached, or refuses.
        """
        ...


TransportFactory = Callable[[str, Mapping[str, Any]], Transport]  # (url, transport options)
