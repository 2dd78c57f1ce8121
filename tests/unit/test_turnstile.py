"""The turnstile: who begins, who waits here, who is parked, and what happens when nobody can be asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from celeriac.clock import FakeClock
from celeriac.errors import TransportError
from celeriac.message import TaskHeaders
from celeriac.node.policy import Policies, Policy
from celeriac.node.turnstile import (
    MOST_OF_A_KIND,
    PARK_LEAST_SECONDS,
    PARK_MOST_SECONDS,
    ConcurrencyTurnstile,
    RateTurnstile,
)
from celeriac.node.work import Ledger, Work
from celeriac.permits import Claim
from celeriac.transports.memory_permits import MemoryPermits
from job_factory import memory_app

TIMEOUT = 30.0


class Store(MemoryPermits):
    """Permits that can be out of reach."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.away = False
        self.asked = asyncio.Event()
        self.given_back = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def exchange(self, back: Sequence[Claim], wanted: Sequence[Claim]) -> list[bool]:
        if self.away:
            raise TransportError("nobody answers.")
        answers = super().exchange(back, wanted)
        self._loop.call_soon_threadsafe(self.asked.set)
        if back:
            self._loop.call_soon_threadsafe(self.given_back.set)
        return answers


class Bench:
    """A turnstile that runs, and what has passed it."""

    @staticmethod
    def policy_of(
        limit: int | None = None, rate: str | None = None, per: str | None = None, **settings: Any
    ) -> Policy:
        app = memory_app(**settings)
        scope = "global" if rate else "worker"
        options: dict[str, Any] = {"concurrency_limit": limit, "rate_limit": rate, "per": per}
        app.task(name="shop.pay", bind=False, rate_limit_scope=scope, **options)(lambda tenant=None: None)
        policy = Policies(app, None, None).get("shop.pay")
        assert policy is not None
        return policy

    def __init__(self, limit: int | None, *, parks: bool = True, rate: str | None = None) -> None:
        self.policy: Policy = self.policy_of(limit, rate, "args.tenant")
        self.clock = FakeClock()
        self.store = Store(self.clock)
        self.free = 10
        self.passed: list[int] = []
        self.news = asyncio.Event()
        kind = RateTurnstile if rate else ConcurrencyTurnstile
        self.turnstile = kind(lambda: self.store, self.clock, lambda: self.free, self._on_permit, parks=parks)
        self.ledger = Ledger(self.turnstile.over)

    def come(self, task_id: str = "x", key: str | None = None) -> Work:
        delivery: Any = None
        headers = TaskHeaders(task="shop.pay", id=task_id, limit_key=key)
        work = self.ledger.open(delivery, headers, self.policy)
        assert not self.turnstile.may_begin(work)
        return work

    def parked_until(self, task_id: str = "x") -> float | None:
        return self.turnstile.parked_until(TaskHeaders(task="shop.pay", id=task_id), self.policy)

    def end(self, work: Work) -> None:
        self.free += 1
        self.ledger.close(work.number)

    async def has_passed(self, *works: Work) -> None:
        async with asyncio.timeout(TIMEOUT):
            while sorted(self.passed) != sorted(work.number for work in works):
                self.news.clear()
                await self.news.wait()

    async def asked_again(self) -> None:
        for _ in range(2):  # the first may have been under way
            self.store.asked.clear()
            self.turnstile.on_room()
            async with asyncio.timeout(TIMEOUT):
                await self.store.asked.wait()

    def _on_permit(self, work: Work) -> None:
        self.free -= 1
        self.passed.append(work.number)
        self.news.set()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(2)
    running = asyncio.create_task(bench.turnstile.run())
    yield bench
    running.cancel()
    await asyncio.wait([running])
    await bench.turnstile.close()


async def test_what_ends_lets_the_next_begin(bench: Bench) -> None:
    first, second, third = bench.come(), bench.come(), bench.come()
    await bench.has_passed(first, second)
    await bench.asked_again()
    assert len(bench.passed) == 2

    bench.end(first)

    await bench.has_passed(first, second, third)


async def test_each_key_is_counted_by_itself(bench: Bench) -> None:
    works = [bench.come(key=key) for key in ("a", "a", "a", "b")]

    await bench.has_passed(works[0], works[1], works[3])


async def test_a_node_without_room_stands_in_no_line(bench: Bench) -> None:
    bench.free = 0
    mine = bench.come()
    bench.turnstile.on_room()
    others = [Claim("shop.pay", 2, "o1"), Claim("shop.pay", 2, "o2")]
    assert await asyncio.to_thread(bench.store.exchange, [], others) == [True, True]

    bench.free = 1
    await bench.asked_again()
    bench.free = 0
    bench.turnstile.on_room()
    async with asyncio.timeout(TIMEOUT):
        await bench.store.given_back.wait()  # its place in line

    assert await asyncio.to_thread(bench.store.exchange, others[:1], [Claim("shop.pay", 2, "o3")]) == [True]
    assert bench.passed == []
    bench.turnstile.drop(mine)


async def test_the_permit_of_what_was_taken_back_meanwhile_goes_to_others(bench: Bench) -> None:
    first, second, third, fourth = (bench.come() for _ in range(4))
    await bench.has_passed(first, second)
    await bench.asked_again()

    bench.ledger.close(third.number)
    bench.end(first)

    await bench.has_passed(first, second, fourth)


async def test_nothing_begins_while_nobody_can_be_asked(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.store.away = True
    work = bench.come()
    while not caplog.messages:
        await asyncio.sleep(0.01)
    assert caplog.messages == [
        "No permits for limited tasks: nobody answers. Nothing that needs one begins; trying again."
    ]
    assert bench.passed == []

    bench.store.away = False

    await bench.has_passed(work)


async def test_closing_gives_everything_back() -> None:
    bench = Bench(1)
    running = asyncio.create_task(bench.turnstile.run())
    held, _ = bench.come(), bench.come()
    await bench.has_passed(held)
    await bench.asked_again()
    running.cancel()
    await asyncio.wait([running])

    await bench.turnstile.close()

    assert bench.store.exchange([], [Claim("shop.pay", 1, "other")]) == [True]


async def test_a_few_wait_here_and_the_others_are_parked_over_the_time_in_which_they_can_run() -> None:
    bench = Bench(2)
    bench.policy.note(4.0)  # seconds that one takes
    for number in range(MOST_OF_A_KIND):
        assert bench.parked_until(str(number)) is None
        bench.come(str(number))

    now = bench.clock.time()
    pauses = []
    for _ in range(200):
        until = bench.parked_until()
        assert until is not None
        pauses.append(until - now)

    assert pauses == sorted(pauses)
    assert pauses[0] >= PARK_LEAST_SECONDS
    assert pauses[9] == pytest.approx(10 * 4.0 / 2 / 2)
    assert pauses[-1] == PARK_MOST_SECONDS


async def test_where_the_broker_parks_nothing_all_wait_here() -> None:
    bench = Bench(1, parks=False)

    for number in range(MOST_OF_A_KIND * 2):
        assert bench.parked_until(str(number)) is None
        bench.come(str(number))

    assert len(bench.turnstile) == MOST_OF_A_KIND * 2
    assert len(bench.turnstile.take_back()) == MOST_OF_A_KIND * 2


async def test_a_rate_lets_the_next_begin_after_its_time_whatever_becomes_of_the_first() -> None:
    bench = Bench(None, rate="10/m")
    running = asyncio.create_task(bench.turnstile.run())
    first, second = bench.come(), bench.come()
    await bench.has_passed(first)
    bench.end(first)
    bench.clock.advance(5.9)
    await bench.asked_again()
    assert len(bench.passed) == 1

    bench.clock.advance(0.2)

    await bench.has_passed(first, second)
    running.cancel()
    await asyncio.wait([running])
    await bench.turnstile.close()


def claim_of(policy: Policy, key: str | None = None) -> Claim | None:
    """Return what a task has to have in order to begin."""
    turnstile = RateTurnstile(lambda: MemoryPermits(FakeClock()), FakeClock(), int, print, parks=True)
    return turnstile.claim(TaskHeaders(task="shop.pay", id="x", limit_key=key), policy, "me")


def test_a_quick_rate_is_handed_out_in_tenths_of_a_second() -> None:
    policy = Bench.policy_of(rate="200/s", per="args.tenant")

    assert claim_of(policy, "acme") == Claim("rate:shop.pay[acme]", 20, "me", keeps_seconds=0.1)


def test_the_key_of_another_task_that_was_handed_on_does_not_count() -> None:
    claim = claim_of(Bench.policy_of(rate="10/m"), "acme")

    assert claim is not None
    assert claim.limited == "rate:shop.pay"


def test_a_worker_that_limits_no_rates_asks_for_none() -> None:
    assert claim_of(Bench.policy_of(rate="10/m", worker_disable_rate_limits=True)) is None
