"""The keeper of locks while the store of them is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from celeriac.clock import FakeClock
from celeriac.errors import TransportError
from celeriac.locks import PATIENCE_SECONDS, Lock, to_header
from celeriac.message import TaskHeaders
from celeriac.node.keeper import Keeper
from celeriac.node.policy import Policies
from celeriac.node.work import Ledger, Work
from celeriac.transports.memory_locks import MemoryLocks
from celeriac.uniqueness import UNTIL_STARTED
from job_factory import memory_app

TIMEOUT = 30.0
AWAY = (
    "The locks of unique tasks are out of reach: nobody answers. None of those that are unique until they "
    "start begins; trying again."
)


class Store(MemoryLocks):
    """Locks that can be out of reach."""

    away = True

    def exchange(
        self, free: Sequence[Lock], keep: Sequence[Lock], *, deadline: float = PATIENCE_SECONDS
    ) -> list[bool]:
        if self.away:
            raise TransportError("nobody answers.")
        return super().exchange(free, keep, deadline=deadline)


@contextlib.asynccontextmanager
async def keeping(store: Store, begun: list[Work]) -> AsyncIterator[Keeper]:
    keeper = Keeper(lambda: store, FakeClock(), lambda: 10, begun.append)
    running = asyncio.create_task(keeper.run())
    yield keeper
    running.cancel()
    await asyncio.wait([running])
    await keeper.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_has_to_free_its_lock_begins_when_the_store_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given work that is unique until it starts, and a store that is away
    caplog.set_level(logging.INFO)
    app = memory_app()
    app.task(name="shop.pay", bind=False)(lambda: None)
    policy = Policies(app, None, None).get("shop.pay")
    assert policy is not None
    delivery: Any = None
    headers = TaskHeaders(task="shop.pay", id="x", lock=to_header(UNTIL_STARTED, "pay"))
    work = Ledger(lambda work: None).open(delivery, headers, policy)
    begun: list[Work] = []
    store = Store(FakeClock())
    assert store.take([Lock("pay", "x", 60.0)]) == [None]

    async with keeping(store, begun) as keeper:
        assert not keeper.may_begin(work)
        await until(lambda: caplog.messages == [AWAY])
        assert begun == []

        # When it is back
        store.away = False

        # Then its lock is free, and it may begin
        await until(lambda: begun == [work])
    assert store.take([Lock("pay", "other", 60.0)]) == [None]
    assert caplog.messages == [AWAY, "The locks of unique tasks are to be had again."]


async def test_a_result_does_not_wait_for_a_lock_that_cannot_be_freed_now() -> None:
    store = Store(FakeClock())
    lock = Lock("pay", "x", 60.0)
    store.take([lock])

    async with keeping(store, []) as keeper:
        async with asyncio.timeout(TIMEOUT):
            await keeper.settle([lock], [])
        assert store.take([Lock("pay", "other", 60.0)]) == ["x"]

        store.away = False

        await until(lambda: store.take([Lock("pay", "other", 60.0)]) == [None])
