"""The ports between the floors: what a transport, a backend and a pool owe to those above them.

Each port has one conformance suite in `celeriac.testing.conformance` that every implementation passes.
Drivers translate their own exceptions into `celeriac.errors` once, inside the implementation; nothing else
ever leaves a port.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from celeriac.bursts import Bursts
from celeriac.letters import EVERYTHING, Letter, Wanted
from celeriac.locks import Locks
from celeriac.message import (
    Broadcast,
    Delivery,
    Job,
    Outcome,
    Outgoing,
    Part,
    Record,
    Report,
    Started,
    Verdict,
)
from celeriac.pauses import Pauses
from celeriac.permits import Permits
from celeriac.queues import Queue
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


class ConsumeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a node wants to consume, and on which terms."""

    queues: tuple[Queue, ...]
    node: str  # node name, such as celery@host
    prefetch: int = 0  # most deliveries outstanding at once; 0 = no limit
    lease_seconds: float = 15.0


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


class Consumer(Protocol):
    """Leases messages to one node. Asynchronous only: nobody but a node consumes."""

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """Wait for at least one message and return at most ``limit``, leased in one atomic step.

        Cancelling it loses nothing: a message is either returned by the next call or still at the broker.
        A message that cannot be read comes with ``defect`` set, never as an exception. Unless the broker is
        strict about it, queues take turns, so that a full one cannot starve another; within a queue it is
        priority first, then first in, first out; with ``caps.rounds`` messages that have a key take turns
        by it before that.

        Raises:
            TransportError: The connection was lost; the node calls again after a pause and the consumer
                reconnects by itself. Deliveries that the broker has taken back are then void: settling
                them does nothing.
        """
        ...

    async def settle(self, verdicts: Sequence[tuple[Delivery, Verdict]]) -> None:
        """Carry out the verdicts, in one round trip for all.

        Settling a delivery whose lease was lost does nothing to the message (fencing). ``Start`` leaves the
        delivery outstanding; every other verdict ends it.
        """
        ...

    async def renew(self) -> None:
        """Extend the leases of everything outstanding, in one call; take back what dead nodes left."""
        ...

    def holds(self, delivery: Delivery) -> bool:
        """Return whether a delivery is ours and not settled yet, as far as we know.

        Who was silent for longer than its lease may be taken for dead; right after `renew` this is certain.
        """
        ...

    async def set_prefetch(self, limit: int) -> None:
        """Change how many deliveries may be outstanding; 0 = no limit."""
        ...

    async def add_queue(self, queue: Queue) -> None:
        """Consume from one more queue, declared first."""
        ...

    async def cancel_queue(self, name: str) -> None:
        """Stop consuming from a queue; deliveries already taken stay ours."""
        ...

    async def close(self) -> None:
        """Hand back at once whatever is outstanding and was not started, then let go of the connection."""
        ...


class Tethered(Protocol):
    """What a consumer has besides where its connection is the lease (``caps.leases`` is false)."""

    async def lost(self) -> None:
        """Return as soon as the connection is lost, and with it all that is held; `receive` then raises why.

        A node that has no room receives nothing, and would begin what others have by now.
        """
        ...

    def unseen(self) -> Sequence[Delivery]:
        """Return what was sent to us and nobody has received, without waiting; to be settled as the rest."""
        ...

    def came_to_nothing(self, deliveries: Iterable[Delivery]) -> None:
        """Hear which deliveries had not begun when the connection was lost: they do not count as attempts."""
        ...


class Unheard(Protocol):
    """What a consumer has besides where ``caps.hands_over``: messages that it asked for come long after that.

    By then the broker may hear it no more.
    """

    @property
    def heard_at(self) -> float:
        """When the broker has last answered a call of ours; the loop's time."""
        ...

    def touch(self, done: Callable[[bool], None]) -> None:
        """Ask the broker for an answer, and call ``done`` with whether there was one.

        That is called on the loop as early as possible, at once without a connection. It must not raise.
        """
        ...


class Subscription(Protocol):
    """What is heard on one queue of broadcasts; used on the loop that subscribed.

    What nobody has taken yet is bounded: when there is too much, the oldest is missed.
    """

    missed: int  # broadcasts that were dropped because nobody took them in time

    async def next(self) -> Broadcast:
        """Wait for the next broadcast; cancelling it loses nothing.

        Raises:
            TransportError: The connection was lost, and what is sent meanwhile is missed; subscribe again.
        """
        ...

    async def close(self) -> None:
        """Listen no longer."""
        ...


class Fanout(Protocol):
    """Broadcasts: everybody who has subscribed gets every message sent after that. Cheap when nobody has."""

    def publish(self, batch: Sequence[Broadcast], *, deadline: float) -> int | None:
        """Send, from any thread; after a fork too.

        Args:
            batch: What to send; order is kept.
            deadline: Budget in seconds for connecting and writing together.

        Returns:
            How many subscriptions the messages went to, all together; None where the broker does not say.

        Raises:
            TransportError: The broker cannot be reached, or refuses.
        """
        ...

    async def apublish(self, batch: Sequence[Broadcast], *, deadline: float) -> int | None:
        """Do the same without blocking the caller's loop; it is meant for those who send often."""
        ...

    async def subscribe(self, queue: Queue) -> Subscription:
        """Begin to listen, and return when everything that is sent from now on is heard.

        Args:
            queue: Its name, exchange and routing key (for a topic, a pattern), and how it is to be declared.
                A queue of a direct exchange is for answers: what was sent to one before is gone.

        Raises:
            TransportError: The broker cannot be reached, or refuses.
        """
        ...

    async def aclose(self) -> None:
        """End all subscriptions of the running loop and close its connections."""
        ...

    def close(self) -> None:
        """Close the connections that `publish` has opened."""
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


class Waiting(Protocol):
    """One who waits for the outcomes of some tasks; used by one thread, but for what says otherwise."""

    @property
    def missing(self) -> Mapping[str, Outcome | None]:
        """The ids that it still waits for, with what was last said of each."""
        ...

    def add(self, ids: Iterable[str]) -> None:
        """Wait for these too; safe for threads."""
        ...

    def drop(self, ids: Iterable[str]) -> None:
        """Do not wait for these any longer; safe for threads."""
        ...

    def next(self, until: float) -> list[Outcome]:
        """Return the outcomes that have come since the last call, waiting for one if need be.

        Args:
            until: When to give up and return nothing; `time.monotonic` seconds. It also returns nothing when
                there is nothing to wait for, and when it is woken.

        Raises:
            BackendError: The store cannot be asked, for longer than the driver is patient.
        """
        ...

    def wake(self) -> None:
        """Have `next` return soon; safe for threads."""
        ...

    def close(self) -> None:
        """Wait for nothing any longer."""
        ...


class Listener(Protocol):
    """Hears of outcomes as a store gets them; `celeriac.backends.waiter` shares one among all who wait.

    Used by one thread at a time, but for `wake`. An id is watched until `unwatch`, or until `watch` or `hear`
    has returned a final outcome of it.
    """

    def watch(self, ids: Sequence[str]) -> list[Outcome]:
        """Hear of these too from now on; return what is known already, unless `hear` will."""
        ...

    def unwatch(self, ids: Sequence[str]) -> None:
        """Do not hear of these any longer."""
        ...

    def hear(self, until: float) -> list[Outcome]:
        """Wait for news of what is watched and return them; nothing when time is up, or when woken.

        Args:
            until: When to give up; `time.monotonic` seconds, maybe infinite.

        Raises:
            BackendError: The store stays away or refuses.
        """
        ...

    def wake(self) -> None:
        """Have this or the next `hear` return soon; safe for threads."""
        ...

    def close(self) -> None:
        """Let go of what it listens with."""
        ...


class ResultBackend(Protocol):
    """Keeps the outcomes of tasks. Its sync side is safe for threads and aware of forks."""

    persistent: bool  # whether a result can be read twice and by others
    joins_chords: bool  # whether `chord_part` can count; if not, a task polls for the header's results

    def encode(
        self, outcome: Outcome, *, reply_to: str | None = None, correlation_id: str | None = None
    ) -> Record:
        """Return the record of an outcome; pure, runs where the task ran.

        Raises:
            EncodeError: The result has no form in the result serializer.
        """
        ...

    def reply_address(self) -> str | None:
        """Return the queue that results shall be sent to, made ready to receive; None when not needed."""
        ...

    def store(self, batch: Sequence[Record]) -> None:
        """Write the records, in one round trip, and wake whoever waits. A SUCCESS is never overwritten.

        Raises:
            BackendUnreachable: Nobody answers; nothing or a part of the batch was written.
        """
        ...

    async def astore(self, batch: Sequence[Record]) -> None:
        """Do the same without blocking the node's loop."""
        ...

    def fetch(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Return what is known of the ids now; ids with nothing stored are left out."""
        ...

    def wait(self, ids: Sequence[str], timeout: float | None) -> Iterator[Outcome]:
        """Yield the outcome of each id once, as it becomes ready.

        Ends when all are ready. Nothing of a backend is subscribed to before somebody waits, and all who wait
        in a process share a connection.

        Raises:
            TimeoutError: (celeriac.errors) not all were ready in time.
        """
        ...

    def waiting(self, *, every_state: bool = False) -> Waiting:
        """Return a wait that ids can be added to, which shares that connection.

        Args:
            every_state: Whether states that are not final are news as well.
        """
        ...

    def forget(self, ids: Sequence[str]) -> None:
        """Remove what is stored of the ids."""
        ...

    def save_group(self, group_id: str, result: Any) -> None:  # Any: nested result tuples
        """Keep the shape of a group's results."""
        ...

    def restore_group(self, group_id: str) -> Any | None:  # Any: nested result tuples
        """Return the shape kept by `save_group`, or None."""
        ...

    def delete_group(self, group_id: str) -> None:
        """Remove it."""
        ...

    def start_chord(self, chord_id: str, size: int, members: Any) -> None:  # Any: nested result tuples
        """Note how many parts a chord has, before its last header task is sent; parts may have come already.

        Doing it twice changes nothing.
        """
        ...

    def chord_part(self, chord_id: str, index: int | None, outcome: Outcome) -> list[Outcome] | None:
        """Note one finished part; atomic and idempotent per task id, and at most O(log n) in the parts.

        Returns:
            All parts in order for the one task that completed the chord; None for everybody else. That task
            gets them again whenever it comes again before `end_chord`: it may have died before it could send
            the body.
        """
        ...

    def grow_chord(self, chord_id: str, task_ids: Sequence[str]) -> None:
        """Have a chord wait for more parts, beside those that it was started with; it may not be started yet.

        Called by a part that has not ended. Idempotent per task id; a chord whose parts have all come does
        not grow: a part that is run again changes nothing.
        """
        ...

    def end_chord(self, chord_id: str) -> None:
        """Remove what was kept for a chord."""
        ...

    def claim(self, task_id: str, copy: str) -> bool:
        """Return whether this copy of a task's message is the first that claims to be run; atomic.

        The same copy may claim again (it is redelivered); every other one is told no for as long as results
        are kept.
        """
        ...

    def cleanup(self) -> None:
        """Remove expired results, where the store does not do so itself."""
        ...

    def close(self) -> None:
        """Close the connections of this process."""
        ...


class CountsParts(Protocol):
    """What a result backend has besides when it can be told of many parts of chords at once.

    Children then only encode the parts of their successes; the node counts them between storing results and
    settling messages. `ResultBackend.chord_part` knows of parts that were counted here.
    """

    def encode_part(self, chord_id: str, index: int | None, outcome: Outcome) -> Part:
        """Return a finished part in the form that `count_parts` takes; pure, runs where the task ran.

        Raises:
            EncodeError: The result has no form in the result serializer.
        """
        ...

    async def count_parts(self, batch: Sequence[Part]) -> list[str]:
        """Note finished parts, in one round trip; atomic for each chord, and idempotent per task id.

        Returns:
            The ids of the tasks that have completed chords: one for each. Such a task has to come again, to
            `ResultBackend.chord_part`, which gives it all the parts.

        Raises:
            BackendUnreachable: Nobody answers; all or some of them were counted or none. Try again.
        """
        ...


@runtime_checkable
class KeepsTimetable(Protocol):
    """What a result backend has besides when it can keep the timetable of periodic tasks."""

    def timetable(self, owner: str) -> Timetable:
        """Return the timetable of an app; cheap, no I/O.

        Args:
            owner: Whose; others' are apart from it.
        """
        ...


class Pool(Protocol):
    """Runs jobs. Lives on the node's loop; user code never does."""

    size: int  # slots
    kind: str  # prefork | threads | solo | …

    def open(self) -> None:
        """Do what has to happen before there is a loop, a thread or a connection."""
        ...

    async def start(self, deliver: Callable[[Sequence[Report]], None]) -> None:
        """Make the slots ready; tolerates being called twice.

        Args:
            deliver: Called on the loop with what the slots report, in batches. Every job that was submitted
                and not recalled gets exactly one `Finished` or `Lost`, and at most one `Started` before it.
        """
        ...

    def free(self, *, short: bool = False) -> int:
        """Return how many more jobs `submit` takes now.

        Args:
            short: Whether these are jobs known to take a few milliseconds at most: then several may wait at
                one slot. Others go to idle slots only, so that none waits behind a long one.
        """
        ...

    def submit(self, batch: Sequence[Job]) -> None:
        """Hand over jobs of one kind (`Job.short`); never blocks, never beyond `free`."""
        ...

    def recall(self) -> list[int]:
        """Take back jobs that have not begun, as far as they can be reached, and return their numbers."""
        ...

    def kill(self, number: int, signal: int) -> bool:
        """Signal the process that runs a job; False when it does not run here or cannot be signalled."""
        ...

    def running(self) -> Sequence[Started]:
        """Return the jobs that are being run now."""
        ...

    def pids(self) -> Sequence[int]:
        """Return the processes that run jobs."""
        ...

    def resize(self, size: int) -> None:
        """Have another number of slots, at least one; what runs at those that go ends first.

        Raises:
            ValueError: This pool cannot have as many, or cannot be changed.
        """
        ...

    def restart(self) -> None:
        """Replace the processes by fresh ones, each as soon as its job has ended.

        Raises:
            ValueError: There are none.
        """
        ...

    async def broken(self) -> None:
        """Return when the pool cannot run jobs any more; for most pools that is never."""
        ...

    async def stop(self, *, graceful: bool) -> None:
        """End the slots: after the jobs they have, or at once. Tolerates never started and stopped twice."""
        ...


class Service(Protocol):
    """Something in the node with a life of its own; tolerates never started and stopped twice."""

    async def start(self) -> None:
        """Begin."""
        ...

    async def stop(self) -> None:
        """End, and return when it has ended."""
        ...


TransportFactory = Callable[[str, Mapping[str, Any]], Transport]  # (url, transport options)
