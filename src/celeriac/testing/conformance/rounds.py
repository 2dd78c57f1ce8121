"""What messages with a key are owed: that those of one key do not wait behind those of another."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from celeriac.message import Delivery, Outgoing, Requeue
from celeriac.ports import Consumer, Producer, Transport
from celeriac.queues import Queue
from celeriac.rounds import FAIR_KEY_HEADER
from celeriac.testing.conformance.fixtures import (
    DEADLINE_SECONDS,
    Consume,
    TransportFixtures,
    ack,
    nothing_arrives,
    take,
)
from celeriac.testing.conformance.messages import (
    PATIENCE_SECONDS,
    holding_process,
    new_queue,
    read_line,
    texts,
    to_queue,
)


def keyed(queue: Queue, text: str, key: str, *, due: float | None = None, priority: int = 0) -> Outgoing:
    """Return a message that has a key."""
    outgoing = to_queue(queue, text, not_before=due, priority=priority)
    outgoing.envelope.headers[FAIR_KEY_HEADER] = key
    return outgoing


def many(queue: Queue, key: str, count: int) -> list[Outgoing]:
    """Return messages of one key, ``<key>0``, ``<key>1``, …."""
    return [keyed(queue, f"{key}{number}", key) for number in range(count)]


async def one_by_one(consumer: Consumer, count: int) -> list[str]:
    """Take messages as a worker with one slot does, and return their texts."""
    seen: list[Delivery] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(seen) < count:
            got = await consumer.receive(1)
            await ack(consumer, got)
            seen.extend(got)
    return texts(seen)


class RoundTests(TransportFixtures):
    """What messages with a key are owed."""

    @pytest.fixture(autouse=True)
    def _with_rounds(self, request: pytest.FixtureRequest) -> None:
        if request.function.__name__ in vars(RoundTests):
            transport: Transport = request.getfixturevalue("transport")
            if not transport.caps.rounds:
                pytest.skip("this broker has one line for all")

    async def test_one_message_of_a_key_does_not_wait_behind_hundreds_of_another(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        await producer.asend(many(queue, "a", 200), deadline=DEADLINE_SECONDS)
        await producer.asend([keyed(queue, "b0", "b")], deadline=DEADLINE_SECONDS)

        async with consume(queue) as consumer:
            first = await one_by_one(consumer, 3)
            await producer.asend([keyed(queue, "c0", "c")], deadline=DEADLINE_SECONDS)
            rest = await one_by_one(consumer, 199)
            assert await nothing_arrives(consumer)

        assert "b0" in first[:2]
        assert "c0" in rest[:2]
        assert sorted([*first, *rest]) == sorted([*(f"a{n}" for n in range(200)), "b0", "c0"])

    async def test_keys_take_turns_and_each_keeps_its_order(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        batch = [*many(queue, "a", 4), *many(queue, "b", 3), *many(queue, "c", 1)]
        await producer.asend(batch, deadline=DEADLINE_SECONDS)

        async with consume(queue) as consumer:
            seen = await one_by_one(consumer, 8)

        assert seen == ["a0", "b0", "c0", "a1", "b1", "a2", "b2", "a3"]

    async def test_who_sends_one_after_the_other_does_not_overtake_who_waits(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        await producer.asend([*many(queue, "a", 1), *many(queue, "b", 6)], deadline=DEADLINE_SECONDS)

        async with consume(queue) as consumer:
            seen: list[str] = []
            for number in range(1, 7):
                got = await one_by_one(consumer, 1)
                if got[0].startswith("a"):
                    following = keyed(queue, f"a{number}", "a")
                    await producer.asend([following], deadline=DEADLINE_SECONDS)
                seen += got

        assert [text[0] for text in seen].count("b") == 3

    async def test_messages_without_a_key_are_as_those_of_one_more(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        plain = [to_queue(queue, f"p{n}") for n in range(30)]
        await producer.asend(
            [*plain, *many(queue, "a", 30), *many(queue, "b", 30)], deadline=DEADLINE_SECONDS
        )

        async with consume(queue) as consumer:
            seen = await one_by_one(consumer, 15)
            rest = [text for d in await self._all(consumer, 75) for text in texts([d])]

        assert sorted(text[0] for text in seen) == [*"aaaaa", *"bbbbb", *"ppppp"]
        assert len({*seen, *rest}) == 90

    async def test_a_higher_priority_comes_before_any_turn(
        self, transport: Transport, producer: Producer, consume: Consume
    ) -> None:
        queue = new_queue(arguments={"x-max-priority": 9})
        high, low = (9, 0) if transport.caps.high_priority_first else (0, 9)
        batch = [keyed(queue, f"low{n}", "a", priority=low) for n in range(3)]
        batch += [keyed(queue, f"high{n}", "b", priority=high) for n in range(3)]
        batch += [to_queue(queue, "plain", priority=low)]
        await producer.asend(batch, deadline=DEADLINE_SECONDS)

        async with consume(queue) as consumer:
            seen = texts(await self._all(consumer, 7))

        assert sorted(seen[:3]) == ["high0", "high1", "high2"]
        assert sorted(seen[3:]) == ["low0", "low1", "low2", "plain"]

    async def test_who_waits_is_woken_by_a_message_with_a_key(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        async with consume(queue) as consumer:
            for number in range(3):
                waiting = asyncio.create_task(consumer.receive(1))
                await asyncio.wait([waiting], timeout=0.02)
                began = time.monotonic()
                await producer.asend([keyed(queue, str(number), "a")], deadline=DEADLINE_SECONDS)
                got = await asyncio.wait_for(waiting, PATIENCE_SECONDS)
                assert time.monotonic() - began < 0.9  # before it would have looked by itself
                assert texts(got) == [str(number)]
                await ack(consumer, got)

    async def test_what_is_handed_back_comes_again_and_in_turn(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        await producer.asend([*many(queue, "a", 3), *many(queue, "b", 3)], deadline=DEADLINE_SECONDS)

        async with consume(queue) as consumer:
            held = await take(consumer, 2)
            await consumer.settle([(held[0], Requeue(untouched=True)), (held[1], Requeue())])
            again = [delivery for _ in range(6) for delivery in await self._all(consumer, 1)]
            assert await nothing_arrives(consumer)

        assert texts(held) == ["a0", "b0"]
        assert texts(again)[0] == "a0"
        assert sorted(texts(again)) == ["a0", "a1", "a2", "b0", "b1", "b2"]
        assert texts(again)[-1] == "b0"  # behind those of its own key
        assert [d.attempt for d in again if texts([d]) in (["a0"], ["b0"])] == [1, 2]

    async def test_what_a_killed_node_held_comes_again(
        self,
        broker_url: str,
        transport_options: dict[str, Any],
        transport: Transport,
        producer: Producer,
        consume: Consume,
        queue: Queue,
    ) -> None:
        if not transport.caps.across_processes:
            pytest.skip("there is no other process")
        await producer.asend([*many(queue, "a", 8), *many(queue, "b", 2)], deadline=DEADLINE_SECONDS)
        with holding_process(broker_url, transport_options, queue, count=5, lease_seconds=0.5) as peer:
            assert read_line(peer) == "holding"
            peer.kill()
            peer.wait(PATIENCE_SECONDS)

        async with consume(queue, lease_seconds=0.5) as consumer:
            seen: list[Delivery] = []
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(seen) < 10:
                    try:
                        async with asyncio.timeout(0.2):
                            got = await consumer.receive(10)
                    except TimeoutError:
                        await consumer.renew()
                    else:
                        await ack(consumer, got)
                        seen.extend(got)

        assert sorted(texts(seen)) == sorted([*(f"a{n}" for n in range(8)), "b0", "b1"])

    async def test_those_whose_time_has_come_take_turns(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        due = time.time() + 0.4
        batch = [keyed(queue, f"a{n}", "a", due=due) for n in range(20)]
        await producer.asend([*batch, keyed(queue, "b0", "b", due=due)], deadline=DEADLINE_SECONDS)

        async with consume(queue) as consumer:
            seen = await one_by_one(consumer, 21)

        assert time.time() >= due
        assert "b0" in seen[:2]
        assert len(set(seen)) == 21

    async def test_those_with_a_key_are_counted_and_purged(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        long_ago = int(time.time()) - 60
        batch = [*many(queue, "a", 3), to_queue(queue, timestamp=long_ago + 30)]
        batch[0].envelope.properties.timestamp = long_ago
        await producer.asend(batch, deadline=DEADLINE_SECONDS)

        counted = transport.size(queue.name), transport.ready(queue.name)
        age = transport.oldest(queue.name)
        purged = transport.purge(queue.name)

        assert (*counted, purged) == (4, 4, 4)
        assert age == (long_ago if transport.caps.ages else None)
        assert transport.size(queue.name) == 0
        async with consume(queue) as consumer:
            assert await nothing_arrives(consumer)

    async def test_two_nodes_share_them_without_doubling(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        seen: list[str] = []
        complete = asyncio.Event()

        async def work(consumer: Consumer) -> None:
            while True:
                got = await consumer.receive(3)
                await ack(consumer, got)
                seen.extend(texts(got))
                if len(seen) >= 120:
                    complete.set()

        async with consume(queue) as first, consume(queue, node="two@conformance") as second:
            workers = [asyncio.create_task(work(first)), asyncio.create_task(work(second))]
            for key in "abc":
                await producer.asend(many(queue, key, 40), deadline=DEADLINE_SECONDS)
            await asyncio.wait_for(complete.wait(), PATIENCE_SECONDS)
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

        assert sorted(seen) == sorted(f"{key}{n}" for key in "abc" for n in range(40))

    async def _all(self, consumer: Consumer, count: int) -> list[Delivery]:
        got = await take(consumer, count)
        await ack(consumer, got)
        return got
