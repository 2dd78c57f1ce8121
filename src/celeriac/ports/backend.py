"""The port of a result store, and of those who wait for results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from celeriac.message import Outcome, Part, Record
from celeriac.timetable import Timetable


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
