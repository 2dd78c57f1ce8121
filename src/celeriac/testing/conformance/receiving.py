"""What `Consumer.receive` owes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable

import pytest

from celeriac.message import Ack, DeadLetter, Delivery, Start
from celeriac.ports import Consumer, Producer, Transport
from celeriac.queues import Queue
from celeriac.testing.conformance.fixtures import (
    DEADLINE_SECONDS,
    QUIET_SECONDS,
    Consume,
    TransportFixtures,
    ack,
    nothing_arrives,
    take,
)
from celeriac.testing.conformance.messages import (
    PATIENCE_SECONDS,
    new_queue,
    texts,
    to_queue,
)


class ReceiveTests(TransportFixtures):
    """What `receive` owes."""

    async def test_receive_waits_for_the_first_message(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        async with consume(queue) as consumer:
            waiting = asyncio.create_task(consumer.receive(10))
            done, _ = await asyncio.wait([waiting], timeout=QUIET_SECONDS)
            assert not done

            began = time.monotonic()
            await producer.asend([to_queue(queue, "late")], deadline=DEADLINE_SECONDS)
            got = await asyncio.wait_for(waiting, PATIENCE_SECONDS)
            took = time.monotonic() - began
            await ack(consumer, got)

        assert texts(got) == ["late"]
        assert took < 2.0

    async def test_a_message_from_another_thread_wakes_receive(
        self, transport: Transport, consume: Consume, queue: Queue
    ) -> None:
        def send() -> None:
            producer = transport.producer()
            producer.send([to_queue(queue, "from a thread")], deadline=DEADLINE_SECONDS)
            producer.close()

        async with consume(queue) as consumer:
            waiting = asyncio.create_task(consumer.receive(1))
            await asyncio.sleep(0)
            await asyncio.to_thread(send)
            got = await asyncio.wait_for(waiting, PATIENCE_SECONDS)
            await ack(consumer, got)

        assert texts(got) == ["from a thread"]

    async def test_receive_returns_at_most_the_limit(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        await producer.asend([to_queue(queue, str(n)) for n in range(10)], deadline=DEADLINE_SECONDS)

        async with consume(queue) as consumer:
            sizes = []
            seen: list[Delivery] = []
            while len(seen) < 10:
                got = await asyncio.wait_for(consumer.receive(3), PATIENCE_SECONDS)
                sizes.append(len(got))
                seen.extend(got)
            await ack(consumer, seen)

        assert all(1 <= size <= 3 for size in sizes)
        assert texts(seen) == [str(n) for n in range(10)]

    async def test_receive_keeps_to_the_prefetch_limit(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        await producer.asend([to_queue(queue, str(n)) for n in range(8)], deadline=DEADLINE_SECONDS)

        async with consume(queue, prefetch=3) as consumer:
            held = await take(consumer, 3)
            assert await nothing_arrives(consumer)

            await ack(consumer, held[:1])
            assert texts(await take(consumer, 1)) == ["3"]
            assert await nothing_arrives(consumer)

            await consumer.set_prefetch(5)
            assert texts(await take(consumer, 2)) == ["4", "5"]
            assert await nothing_arrives(consumer)

    async def test_what_has_begun_counts_below_the_prefetch_limit_until_it_ends(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        await producer.asend([to_queue(queue, str(n)) for n in range(4)], deadline=DEADLINE_SECONDS)

        async with consume(queue, prefetch=2) as consumer:
            first, second = await take(consumer, 2)
            await consumer.settle([(first, Start())])
            await consumer.settle([(second, Start())])
            assert await nothing_arrives(consumer)

            await ack(consumer, [second])
            [third] = await take(consumer, 1)
            await consumer.settle([(third, Start())])
            assert await nothing_arrives(consumer)

            await ack(consumer, [first, third])
            assert texts(await take(consumer, 1)) == ["3"]

    async def test_settling_while_receive_waits_for_room_wakes_it(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        await producer.asend([to_queue(queue, str(n)) for n in range(2)], deadline=DEADLINE_SECONDS)

        async with consume(queue, prefetch=1) as consumer:
            held = await take(consumer, 1)
            waiting = asyncio.create_task(consumer.receive(1))
            await asyncio.wait([waiting], timeout=QUIET_SECONDS)
            await ack(consumer, held)

            got = await asyncio.wait_for(waiting, 2.0)
            await ack(consumer, got)

        assert texts(got) == ["1"]

    async def test_cancelling_receive_loses_nothing(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        dice = random.Random(7)  # noqa: S311 - no secret
        seen: list[Delivery] = []

        async with consume(queue) as consumer:
            for round_ in range(40):
                waiting = asyncio.create_task(consumer.receive(2))
                await asyncio.sleep(dice.random() * 0.002)
                await producer.asend([to_queue(queue, str(round_))], deadline=DEADLINE_SECONDS)
                await asyncio.sleep(dice.random() * 0.002)
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    seen.extend(await waiting)
            seen.extend(await take(consumer, 40 - len(seen)))
            assert await nothing_arrives(consumer)
            await ack(consumer, seen)

        assert sorted(texts(seen), key=int) == [str(n) for n in range(40)]

    async def test_the_urgent_come_first_and_equals_in_order(
        self, transport: Transport, producer: Producer, consume: Consume
    ) -> None:
        queue = new_queue(arguments={"x-max-priority": 9})
        sent = [(0, "a"), (9, "b"), (3, "c"), (9, "d"), (0, "e"), (6, "f"), (3, "g")]
        for priority, text in sent:
            await producer.asend([to_queue(queue, text, priority=priority)], deadline=DEADLINE_SECONDS)

        async with consume(queue) as consumer:
            got = await take(consumer, len(sent))
            await ack(consumer, got)

        high_first = transport.caps.high_priority_first
        wanted = sorted(sent, key=lambda pair: -pair[0] if high_first else pair[0])
        assert texts(got) == [text for _, text in wanted]
        assert [d.envelope.properties.priority for d in got] == [priority for priority, _ in wanted]

    async def test_queues_take_turns(self, producer: Producer, consume: Consume) -> None:
        full, short = new_queue(), new_queue()
        await producer.asend([to_queue(full, str(n)) for n in range(200)], deadline=DEADLINE_SECONDS)
        await producer.asend([to_queue(short, str(n)) for n in range(3)], deadline=DEADLINE_SECONDS)

        async with consume(full, short, prefetch=10) as consumer:
            seen: list[Delivery] = []
            while len(seen) < 60:
                got = await asyncio.wait_for(consumer.receive(10), PATIENCE_SECONDS)
                await ack(consumer, got)
                seen.extend(got)

        assert [d.envelope.body for d in seen if d.queue == short.name] == [b"0", b"1", b"2"]

    async def test_two_consumers_share_a_queue_without_doubling(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        seen: list[Delivery] = []
        complete = asyncio.Event()

        async def work(consumer: Consumer) -> None:
            while True:
                got = await consumer.receive(3)
                await ack(consumer, got)
                seen.extend(got)
                if len(seen) >= 100:
                    complete.set()

        async with consume(queue) as first, consume(queue, node="two@conformance") as second:
            workers = [asyncio.create_task(work(first)), asyncio.create_task(work(second))]
            await producer.asend([to_queue(queue, str(n)) for n in range(100)], deadline=DEADLINE_SECONDS)
            await asyncio.wait_for(complete.wait(), PATIENCE_SECONDS)
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            assert await nothing_arrives(first)

        assert sorted(texts(seen), key=int) == [str(n) for n in range(100)]

    async def test_queues_are_added_and_cancelled(self, producer: Producer, consume: Consume) -> None:
        old, new = new_queue(), new_queue()

        async with consume(old, prefetch=10) as consumer:
            await consumer.add_queue(new)
            await producer.asend([to_queue(new, "new")], deadline=DEADLINE_SECONDS)
            first = await take(consumer, 1)
            await consumer.cancel_queue(old.name)
            await producer.asend([to_queue(old, "old")], deadline=DEADLINE_SECONDS)
            assert await nothing_arrives(consumer)
            await ack(consumer, first)

            await consumer.add_queue(old)
            second = await take(consumer, 1)
            await ack(consumer, second)

        assert texts([*first, *second]) == ["new", "old"]

    async def test_a_delivery_of_a_cancelled_queue_stays_ours(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        other = new_queue()
        async with consume(queue, other) as consumer:
            await producer.asend([to_queue(queue)], deadline=DEADLINE_SECONDS)
            held = await take(consumer, 1)

            await consumer.cancel_queue(queue.name)

            async with consume(queue, node="two@conformance") as second:
                assert await nothing_arrives(second)
                await ack(consumer, held)
                assert await nothing_arrives(second)

    async def test_an_expired_message_is_not_delivered(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        if not self.honours_expiration:
            pytest.skip("this broker keeps messages until somebody takes them")
        await producer.asend(
            [to_queue(queue, "stale", expiration="50"), to_queue(queue, "fresh", expiration="60000")],
            deadline=DEADLINE_SECONDS,
        )
        await asyncio.sleep(0.2)

        async with consume(queue) as consumer:
            got = await take(consumer, 1)
            assert await nothing_arrives(consumer)
            await ack(consumer, got)

        assert texts(got) == ["fresh"]

    async def test_an_unreadable_message_comes_with_its_defect(
        self,
        producer: Producer,
        consume: Consume,
        queue: Queue,
        transport: Transport,
        put_raw: Callable[[Queue, bytes], None] | None,
    ) -> None:
        if put_raw is None:
            pytest.skip("nothing unreadable can get into this broker")
        await producer.asend([to_queue(queue, "good")], deadline=DEADLINE_SECONDS)
        put_raw(queue, b"\xc1 what is this")
        await producer.asend([to_queue(queue, "good too")], deadline=DEADLINE_SECONDS)

        async with consume(queue) as consumer:
            got = await take(consumer, 3)
            await consumer.settle([(d, DeadLetter(reason=d.defect) if d.defect else Ack()) for d in got])
            assert await nothing_arrives(consumer)

        [bad] = [d for d in got if d.defect is not None]
        assert bad.envelope.body == b"\xc1 what is this"
        assert sorted(texts([d for d in got if d.defect is None])) == ["good", "good too"]
        [letter] = transport.graveyard().find(queue.name)
        reason, kept = letter.reason, letter.envelope
        assert (reason, kept.body) == (bad.defect, b"\xc1 what is this")
