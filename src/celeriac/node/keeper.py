"""The keeper: the locks of the unique tasks that a node has."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence

import msgspec

from celeriac.clock import Clock
from celeriac.errors import TransportError
from celeriac.locks import HELD_SECONDS, RENEW_SECONDS, Lock, Locks
from celeriac.node.far_store import FarStore
from celeriac.node.work import Work

logger: logging.Logger = logging.getLogger("celery.worker.strategy")

POLL_SECONDS = 0.1  # between two looks whether there is room


class Keeper:
    """Keeps and frees the locks of unique tasks.

    1. free the lock of a task that is unique until it starts, and only then let it begin: whoever changes
       something and then hears that this call is on its way has to be sure that it will see the change
    2. while one runs that is unique until it is done, keep its lock from ending
    3. free that before anybody hears of the result; keep it when the task is tried again
    4. while the store is away let nothing begin that has a lock to free; what runs goes on

    The lock of a task that may not begin again is held as long as this node lives; all others belong to the
    message, whoever has it.

    Args:
        connect: Returns the locks; called when one is first needed.
        clock: Says what time it is.
        room: Returns how many could begin now.
        release: Called on the loop with work that may begin.
    """

    def __init__(
        self,
        connect: Callable[[], Locks],
        clock: Clock,
        room: Callable[[], int],
        release: Callable[[Work], None],
    ) -> None:
        self._clock = clock
        self._room = room
        self._release = release
        self._store: FarStore[Locks] = FarStore(
            connect,
            "celeriac-locks",
            "The locks of unique tasks are out of reach: %s. None of those that are unique until they start "
            "begins; trying again.",
            "The locks of unique tasks are to be had again.",
        )
        self._waiting: dict[int, Work] = {}  # by number, in order; until their locks are free
        self._running: dict[int, Work] = {}
        self._begun: dict[int, Work] = {}  # of these, what the store does not know of
        self._owed: list[Lock] = []  # that could not be freed
        self._bell = asyncio.Event()
        self._renew_at = 0.0  # on the monotonic clock

    def may_begin(self, work: Work) -> bool:
        """Return whether work has no lock to free first; else it waits here until that is done."""
        if work.lock is None or not work.frees_at_start:
            return True
        self._waiting[work.number] = work
        self._bell.set()
        return False

    def pass_on(self, work: Work) -> None:
        """Let work begin, as soon as its lock is free."""
        if self.may_begin(work):
            self._release(work)

    def began(self, work: Work) -> None:
        """Note that work with a lock runs."""
        if not self._running:
            self._renew_at = self._clock.monotonic() + RENEW_SECONDS
        self._running[work.number] = self._begun[work.number] = work
        self._bell.set()

    def over(self, work: Work) -> None:
        """Note that work with a lock is not in the ledger any more."""
        self._waiting.pop(work.number, None)
        self._running.pop(work.number, None)
        self._begun.pop(work.number, None)

    def drop(self, work: Work) -> None:
        """Let go of work, if it waits here."""
        self._waiting.pop(work.number, None)

    def take_back(self) -> list[Work]:
        """Let go of everything that waits here and return it."""
        waiting, self._waiting = self._waiting, {}
        return list(waiting.values())

    def on_room(self) -> None:
        """Note that there may be more room than before."""
        if self._waiting:
            self._bell.set()

    async def settle(self, free: Sequence[Lock], keep: Sequence[Lock]) -> None:
        """Free the locks of what has ended, and have those of what is tried again last.

        When the store is away, that is made up for later: results do not wait for it.
        """
        try:
            await self._exchange(free, keep)
        except TransportError as exc:
            self._owed += free
            self._bell.set()
            self._store.tell_failure(exc)

    async def run(self) -> None:
        """Free and keep locks until cancelled."""
        while True:
            await self._rest()
            if not await self._store.served(self._serve):
                self._bell.set()

    async def close(self) -> None:
        """Close the connection."""
        await self._store.close()

    async def _rest(self) -> None:
        """Wait until there is something to do: news, room, or a renewal."""
        if not self._bell.is_set():
            seconds: float | None = None
            if self._running:
                seconds = max(0.0, self._renew_at - self._clock.monotonic())
            if self._waiting:
                seconds = POLL_SECONDS if seconds is None else min(seconds, POLL_SECONDS)
            try:
                async with asyncio.timeout(seconds):
                    await self._bell.wait()
            except TimeoutError:
                return
        self._bell.clear()

    async def _serve(self) -> None:
        ready = list(itertools.islice(self._waiting.values(), max(0, self._room())))
        due = self._running and self._clock.monotonic() >= self._renew_at
        kept = list((self._running if due else self._begun).values())
        if not (ready or kept or self._owed):
            return
        begun, self._begun = self._begun, {}
        owed, self._owed = self._owed, []
        free = [*owed, *(work.lock for work in ready if work.lock is not None)]
        try:
            held = await self._exchange(free, [_lease(work) for work in kept])
        except BaseException:
            self._owed = [*owed, *self._owed]
            self._begun = {**{n: work for n, work in begun.items() if n in self._running}, **self._begun}
            raise
        if due:
            self._renew_at = self._clock.monotonic() + RENEW_SECONDS
        for work, still in zip(kept, held, strict=True):
            if not still and self._running.pop(work.number, None) is not None:
                self._tell_lost(work)
        for work in ready:
            if self._waiting.pop(work.number, None) is not None:
                work.lock = None
                self._release(work)

    async def _exchange(self, free: Sequence[Lock], keep: Sequence[Lock]) -> list[bool]:
        return await self._store.call(lambda locks: locks.exchange(free, keep))

    def _tell_lost(self, work: Work) -> None:
        logger.warning(
            "Task %s[%s] runs without its lock: others like it may be sent and begin. It has waited for "
            "longer than its lock lasts, or this node was out of touch with the store of locks for too long.",
            work.headers.task,
            work.headers.id,
        )


def _lease(work: Work) -> Lock:
    """Return the lock of running work with the time for which it is kept."""
    lock = work.lock
    assert lock is not None
    if work.policy.terms.acks_late:  # then it comes again, with its lock
        return lock
    return msgspec.structs.replace(lock, seconds=HELD_SECONDS)
