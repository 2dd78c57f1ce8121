"""Turnstiles: tasks of which only so many run at a time, or begin in a time, in the whole fleet."""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from celeriac.clock import Clock
from celeriac.errors import TransportError
from celeriac.limits import tokens_per_second
from celeriac.message import TaskHeaders
from celeriac.node.far_store import FarStore
from celeriac.node.policy import Policy
from celeriac.node.work import Work
from celeriac.permits import RENEW_SECONDS, Claim, Permits

logger: logging.Logger = logging.getLogger("celery.worker.strategy")

POLL_SECONDS = 0.1  # between two looks whether other nodes have given a permit back
MOST_OF_A_KIND = 8  # that wait here for permits of one kind, or twice its limit; the others are parked
MOST_HELD = 256  # that wait here at all
PARK_LEAST_SECONDS = 0.5
PARK_MOST_SECONDS = 60.0  # a wrong guess costs no more
_GUESS_SECONDS = 0.05  # that a task takes which has never run here: to come back too soon costs little
_MOST_PACES = 10_000


class Turnstile(ABC):
    """Has work begin that has got a permit.

    1. ask for permits for what could begin now, and keep asking: a node without room stands in no line
    2. hold a few that wait, and say until when the others shall be parked
    3. renew each permit until its work has left the ledger, then give it back; unless it ends by itself
    4. while the store of permits is away, let nothing begin; what runs goes on

    Args:
        connect: Returns the permits; called when one is first needed.
        clock: Says what time it is.
        room: Returns how many could begin now.
        release: Called on the loop with work that has its permit.
        parks: Whether the broker keeps messages until a time; else all wait here.
    """

    def __init__(
        self,
        connect: Callable[[], Permits],
        clock: Clock,
        room: Callable[[], int],
        release: Callable[[Work], None],
        *,
        parks: bool,
    ) -> None:
        self._clock = clock
        self._room = room
        self._release = release
        self._parks = parks
        self._id = uuid.uuid4().hex  # of this node's life: the one before may still be thought to hold some
        self._store: FarStore[Permits] = FarStore(
            connect,
            "celeriac-permits",
            "No permits for limited tasks: %s. Nothing that needs one begins; trying again.",
            "Permits of limited tasks are to be had again.",
        )
        self._waiting: dict[int, tuple[Work, Claim]] = {}  # by number, in order
        self._count: dict[str, int] = {}  # what waits, by what it waits for
        self._held: dict[int, Claim] = {}
        self._in_line: dict[Claim, None] = {}  # what the store may have of us besides
        self._back: list[Claim] = []
        self._paces: dict[str, float] = {}  # when the last one that was parked may begin
        self._bell = asyncio.Event()
        self._renew_at = 0.0  # on the monotonic clock

    @abstractmethod
    def claim(self, headers: TaskHeaders, policy: Policy, holder: str) -> Claim | None:
        """Return what a task has to have in order to begin; None: nothing.

        Args:
            headers: Its headers.
            policy: Its kind.
            holder: Who is to have it.
        """

    def parked_until(self, headers: TaskHeaders, policy: Policy) -> float | None:
        """Return until when a task shall be parked because enough others wait here; None: take it in.

        The time is half of what it will take until its turn, as far as one can guess: whoever parks many
        spreads them over the time in which they can run, and no permit is free for long that somebody wants.

        Args:
            headers: Its headers.
            policy: Its kind.
        """
        claim = self.claim(headers, policy, "") if self._parks else None
        if claim is None:
            return None
        limited = claim.limited
        most = max(MOST_OF_A_KIND, 2 * claim.limit)
        if self._count.get(limited, 0) < most and len(self._waiting) < MOST_HELD:
            return None
        now = self._clock.time()
        if len(self._paces) > _MOST_PACES:
            self._paces = {name: at for name, at in self._paces.items() if at > now}
        mean = _GUESS_SECONDS if policy.mean_seconds is None else policy.mean_seconds
        each = (claim.keeps_seconds or mean) / claim.limit
        pace = self._paces[limited] = max(self._paces.get(limited, now), now) + each
        return now + min(max((pace - now) / 2, PARK_LEAST_SECONDS), PARK_MOST_SECONDS)

    def may_begin(self, work: Work) -> bool:
        """Return whether work needs no permit; else it waits here until it has one."""
        claim = self.claim(work.headers, work.policy, f"{self._id}/{work.number}")
        if claim is None:
            return True
        self._waiting[work.number] = work, claim
        self._count[claim.limited] = self._count.get(claim.limited, 0) + 1
        self._bell.set()
        return False

    def over(self, work: Work) -> None:
        """Note that work is not in the ledger any more."""
        claim = self._held.pop(work.number, None)
        if claim is not None:
            self._back.append(claim)
            self._bell.set()
        self.drop(work)

    def drop(self, work: Work) -> None:
        """Let go of work, if it waits here."""
        waited = self._waiting.pop(work.number, None)
        if waited is not None:
            self._leave(waited[1])
            self._bell.set()  # somebody else may have its place in line

    def take_back(self) -> list[Work]:
        """Let go of everything that waits here and return it."""
        works = [work for work, _ in self._waiting.values()]
        for work in works:
            self.drop(work)
        return works

    def on_room(self) -> None:
        """Note that there may be more room than before."""
        if self._waiting:
            self._bell.set()

    def __len__(self) -> int:
        """Return how much waits here."""
        return len(self._waiting)

    async def run(self) -> None:
        """Hand out permits until cancelled."""
        while True:
            await self._rest()
            await self._store.served(self._serve)

    async def close(self) -> None:
        """Give everything back at once."""
        back = [*self._back, *self._held.values(), *self._in_line]
        try:
            await self._store.close(lambda permits: back and permits.exchange(back, ()))
        except TransportError as exc:
            logger.warning("Permits were not given back, they come free by themselves within 15 s: %s", exc)

    async def _serve(self) -> None:
        await self._exchange()
        await self._renew()

    async def _rest(self) -> None:
        """Wait until there is something to do: news, another look, or a renewal."""
        if self._bell.is_set():
            self._bell.clear()
            return
        seconds: float | None = None
        if self._held:
            seconds = max(0.0, self._renew_at - self._clock.monotonic())
        if self._waiting and self._room() > 0:
            seconds = POLL_SECONDS if seconds is None else min(seconds, POLL_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        except TimeoutError:
            return
        self._bell.clear()

    async def _exchange(self) -> None:
        wanted = self._wanted(self._room())
        claims = {claim for _, claim in wanted}
        withdrawn = [claim for claim in self._in_line if claim not in claims]
        if not (wanted or self._back or withdrawn):
            return
        back, self._back = [*self._back, *withdrawn], []
        # What is asked for may be had even if we never hear of it.
        self._in_line = dict.fromkeys([*self._in_line, *(claim for _, claim in wanted)])
        try:
            asked = [claim for _, claim in wanted]
            answers = await self._store.call(lambda permits: permits.exchange(back, asked))
        except BaseException:
            self._back = [*back, *self._back]
            raise
        for claim in back:
            self._in_line.pop(claim, None)
        self._take((work, claim) for (work, claim), got in zip(wanted, answers, strict=True) if got)

    def _wanted(self, room: int) -> list[tuple[Work, Claim]]:
        """Return what to ask for: of each kind no more than could begin."""
        found: list[tuple[Work, Claim]] = []
        asked: dict[str, int] = {}
        for work, claim in self._waiting.values():
            if asked.get(claim.limited, 0) < room:
                asked[claim.limited] = asked.get(claim.limited, 0) + 1
                found.append((work, claim))
        return found

    def _take(self, granted: Iterable[tuple[Work, Claim]]) -> None:
        room = self._room()
        for work, claim in granted:
            if work.number not in self._waiting:  # it was taken back meanwhile
                self._bell.set()  # the permit is given back as a place in line
                continue
            if room <= 0:  # others may have it
                self._in_line.pop(claim, None)
                self._back.append(claim)
                continue
            room -= 1
            self._in_line.pop(claim, None)
            if not claim.keeps_seconds:
                if not self._held:
                    self._renew_at = self._clock.monotonic() + RENEW_SECONDS
                self._held[work.number] = claim
            del self._waiting[work.number]
            self._leave(claim)
            self._release(work)
        if self._back:
            self._bell.set()

    def _leave(self, claim: Claim) -> None:
        left = self._count.pop(claim.limited) - 1
        if left:
            self._count[claim.limited] = left
        else:
            self._paces.pop(claim.limited, None)  # they have been parked for too long

    async def _renew(self) -> None:
        if not self._held or self._clock.monotonic() < self._renew_at:
            return
        held = list(self._held.items())
        kept = await self._store.call(lambda permits: permits.renew([claim for _, claim in held]))
        self._renew_at = self._clock.monotonic() + RENEW_SECONDS
        for (number, claim), still in zip(held, kept, strict=True):
            if not still and self._held.pop(number, None) is not None:
                logger.warning(
                    "The permit of a task that runs was lost, and %s may run more often than %s times for a "
                    "while: this node was out of touch with the store of permits for too long.",
                    claim.limited,
                    claim.limit,
                )


class ConcurrencyTurnstile(Turnstile):
    """For tasks with a ``concurrency_limit``: the permit is held as long as the task runs."""

    def claim(self, headers: TaskHeaders, policy: Policy, holder: str) -> Claim | None:
        """See `Turnstile.claim`."""
        limit = policy.concurrency_limit
        return None if limit is None else Claim(_limited(headers, policy), limit, holder)


class RateTurnstile(Turnstile):
    """For tasks with a ``rate_limit`` of the scope global: the permit ends when the next one may begin."""

    def claim(self, headers: TaskHeaders, policy: Policy, holder: str) -> Claim | None:
        """See `Turnstile.claim`."""
        rate = tokens_per_second(policy.task.rate_limit) if policy.shares_rate else 0.0
        if rate <= 0:
            return None
        at_once = max(1, math.ceil(rate * POLL_SECONDS))
        return Claim(f"rate:{_limited(headers, policy)}", at_once, holder, at_once / rate)


def _limited(headers: TaskHeaders, policy: Policy) -> str:
    """Return what permits are asked for: the task, and the key that its calls are counted by."""
    # Headers are handed on by some ways of sending: another task's key means nothing here.
    key = headers.limit_key if policy.task.per is not None else None
    return headers.task if key is None else f"{headers.task}[{key}]"
