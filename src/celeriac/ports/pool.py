"""The ports of the worker: what a pool owes, and what else has a life of its own in a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from celeriac.message import Job, Report, Started


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
