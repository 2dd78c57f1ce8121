"""What settling, closing and the administration owe."""

from __future__ import annotations

import asyncio
import time

import pytest

from celeriac.message import Ack, DeadLetter, Delivery, Reject, Requeue, Start
from celeriac.ports import Producer, Transport
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
    new_exchange,
    new_queue,
    texts,
    to_queue,
)


class SettleTests(TransportFixtures):
    """What `settle`, `close` and the administration owe."""

    async def test_an_acknowledged_message_is_gone(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        async with consume(queue) as consumer:
            await producer.asend([to_queue(queue)], deadline=DEADLINE_SECONDS)
            await ack(consumer, await take(consumer, 1))

        async with consume(queue) as consumer:
            assert await nothing_arrives(consumer)
        assert transport.size(queue.name) == 0

    async def test_settling_twice_does_nothing_the_second_time(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        async with consume(queue) as consumer:
            await producer.asend([to_queue(queue)], deadline=DEADLINE_SECONDS)
            held = await take(consumer, 1)
            await ack(consumer, held)

            await ack(consumer, held)
            await consumer.settle([(held[0], Requeue())])

            assert await nothing_arrives(consumer)

    async def test_settling_nothing_is_allowed(self, consume: Consume, queue: Queue) -> None:
        async with consume(queue) as consumer:
            await consumer.settle([])

    @pytest.mark.parametrize("arguments", [{}, {"x-queue-type": "quorum"}], ids=["plain", "quorum"])
    @pytest.mark.parametrize("verdict", [Requeue(), Requeue(untouched=True)], ids=["again", "untouched"])
    async def test_what_goes_back_is_not_lost_beside_what_is_done(
        self,
        producer: Producer,
        consume: Consume,
        verdict: Requeue,
        arguments: dict[str, str],
    ) -> None:
        queue = new_queue(arguments=arguments)
        async with consume(queue) as consumer:
            await producer.asend([to_queue(queue, str(n)) for n in range(4)], deadline=DEADLINE_SECONDS)
            held = await take(consumer, 4)

            await consumer.settle([(held[0], verdict), *((delivery, Ack()) for delivery in held[1:])])

            again = await take(consumer, 1)
            await ack(consumer, again)
            assert await nothing_arrives(consumer)
        assert texts(again) == ["0"]

    async def test_verdicts_come_in_any_order_and_mixture(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        async with consume(queue) as consumer:
            await producer.asend([to_queue(queue, str(n)) for n in range(5)], deadline=DEADLINE_SECONDS)
            held = await take(consumer, 5)
            await consumer.settle(
                [
                    (held[4], Ack()),
                    (held[0], DeadLetter(reason="conformance")),
                    (held[2], Requeue()),
                    (held[1], Reject()),
                    (held[3], Start()),
                ]
            )
            again = await take(consumer, 1)
            assert await nothing_arrives(consumer)
            await ack(consumer, [*again, held[3]])

        assert texts(again) == ["2"]
        assert transport.size(queue.name) == 0

    async def test_a_rejected_message_is_gone(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        async with consume(queue) as consumer:
            await producer.asend([to_queue(queue)], deadline=DEADLINE_SECONDS)
            [held] = await take(consumer, 1)
            await consumer.settle([(held, Reject())])

            assert await nothing_arrives(consumer)

    async def test_a_rejected_message_goes_to_the_dead_letter_exchange(
        self, producer: Producer, consume: Consume
    ) -> None:
        if not self.honours_dead_letter_exchange:
            pytest.skip("this broker has no dead-letter exchanges")
        exchange = new_exchange("direct")
        graveyard = new_queue(exchange=exchange, routing_key="dead")
        queue = new_queue(
            arguments={"x-dead-letter-exchange": exchange.name, "x-dead-letter-routing-key": "dead"}
        )

        async with consume(graveyard, node="two@conformance") as undertaker, consume(queue) as consumer:
            await producer.asend([to_queue(queue, "refused")], deadline=DEADLINE_SECONDS)
            [held] = await take(consumer, 1)
            await consumer.settle([(held, Reject())])
            buried = await take(undertaker, 1)
            await ack(undertaker, buried)

        assert texts(buried) == ["refused"]

    async def test_a_requeued_message_comes_again_as_redelivered(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        async with consume(queue) as consumer:
            await producer.asend([to_queue(queue, "again")], deadline=DEADLINE_SECONDS)
            [first] = await take(consumer, 1)
            await consumer.settle([(first, Requeue())])
            [second] = await take(consumer, 1)
            await ack(consumer, [second])

        assert (first.redelivered, second.redelivered) == (False, True)
        assert second.attempt in (1, 2)  # 1 where the broker does not count
        assert second.envelope.body == b"again"
        assert second.envelope.headers == first.envelope.headers

    async def test_a_message_requeued_at_its_own_wish_is_not_counted(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        attempts = []
        async with consume(queue) as consumer:
            await producer.asend([to_queue(queue, "again")], deadline=DEADLINE_SECONDS)
            for _ in range(5):
                [held] = await take(consumer, 1)
                attempts.append(held.attempt)
                await consumer.settle([(held, Requeue(willing=True))])
            await ack(consumer, await take(consumer, 1))

        assert attempts[0] == 1
        assert set(attempts[1:]) <= {1, 2}  # 1 where the broker does not count

    async def test_a_message_requeued_untouched_is_as_if_never_taken(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        async with consume(queue) as consumer:
            await producer.asend([to_queue(queue, str(n)) for n in range(3)], deadline=DEADLINE_SECONDS)
            [first] = await take(consumer, 1)
            await consumer.settle([(first, Requeue(untouched=True))])
            got = await take(consumer, 3)
            await ack(consumer, got)

        [again] = [d for d in got if d.envelope.body == b"0"]
        if transport.caps.leases:
            assert texts(got) == ["0", "1", "2"]
            assert (again.redelivered, again.attempt) == (False, 1)

    async def test_messages_requeued_untouched_keep_their_order(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        async with consume(queue) as consumer:
            await producer.asend([to_queue(queue, str(n)) for n in range(4)], deadline=DEADLINE_SECONDS)
            held = await take(consumer, 3)
            await consumer.settle([(delivery, Requeue(untouched=True)) for delivery in held])
            got = await take(consumer, 4)
            await ack(consumer, got)

        assert sorted(texts(got)) == ["0", "1", "2", "3"]
        if transport.caps.leases:
            assert texts(got) == ["0", "1", "2", "3"]

    async def test_a_dead_letter_is_kept_with_its_reason(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        async with consume(queue) as consumer:
            await producer.asend([to_queue(queue, text) for text in "abc"], deadline=DEADLINE_SECONDS)
            for delivery in await take(consumer, 3):
                text = delivery.envelope.body.decode()
                await consumer.settle([(delivery, DeadLetter(reason=f"no good: {text} é"))])
            assert await nothing_arrives(consumer)

        kept = await asyncio.to_thread(transport.graveyard().find, queue.name)
        assert [(letter.reason, letter.envelope.body) for letter in kept] == [
            ("no good: c é", b"c"),
            ("no good: b é", b"b"),
            ("no good: a é", b"a"),
        ]
        assert kept[0].envelope.headers["task"] == "conformance.task"
        assert len(transport.graveyard().find(queue.name, limit=2)) == 2
        assert len(transport.graveyard().find(queue.name)) == 3
        assert transport.size(queue.name) == 0

    async def test_a_started_delivery_is_ended_by_ack(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        async with consume(queue) as consumer:
            await producer.asend([to_queue(queue)], deadline=DEADLINE_SECONDS)
            [held] = await take(consumer, 1)
            await consumer.settle([(held, Start())])
            await consumer.settle([(held, Ack())])

        async with consume(queue) as consumer:
            assert await nothing_arrives(consumer)
        assert transport.size(queue.name) == 0

    async def test_close_hands_back_at_once_what_was_not_started(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        async with consume(queue) as consumer:
            await producer.asend([to_queue(queue, str(n)) for n in range(4)], deadline=DEADLINE_SECONDS)
            held = await take(consumer, 4)
            await consumer.settle([(held[1], Start()), (held[2], Ack())])

        async with consume(queue, node="two@conformance") as second:
            began = time.monotonic()
            got: list[Delivery] = []
            while len([d for d in got if not d.lost]) < 2:
                got.extend(await asyncio.wait_for(second.receive(10), PATIENCE_SECONDS))
            assert time.monotonic() - began < 3.0
            await ack(second, got)

        assert texts([d for d in got if not d.lost]) == ["0", "3"]
        assert texts([d for d in got if d.lost]) in ([], ["1"])
        if transport.caps.leases:
            assert [d.attempt for d in got if not d.lost] == [1, 1]

    async def test_closing_ends_a_waiting_receive_or_can_follow_its_cancelling(
        self, consume: Consume, queue: Queue
    ) -> None:
        async with consume(queue) as consumer:
            waiting = asyncio.create_task(consumer.receive(1))
            await asyncio.wait([waiting], timeout=QUIET_SECONDS)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await consumer.close()  # and once more at the end of the block

    async def test_purge_throws_away_what_waits(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        await producer.asend([to_queue(queue, str(n)) for n in range(12)], deadline=DEADLINE_SECONDS)
        assert transport.size(queue.name) == 12

        assert transport.purge(queue.name) == 12

        assert transport.size(queue.name) == 0
        assert transport.purge(queue.name) == 0
        async with consume(queue) as consumer:
            assert await nothing_arrives(consumer)

    async def test_size_does_not_count_what_workers_hold(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        await producer.asend([to_queue(queue, str(n)) for n in range(5)], deadline=DEADLINE_SECONDS)

        async with consume(queue, prefetch=2) as consumer:
            await take(consumer, 2)

            assert transport.size(queue.name) == 3

    def test_a_queue_nobody_knows_is_empty(self, transport: Transport) -> None:
        name = new_queue().name

        assert transport.size(name) == 0
        assert transport.graveyard().find(name) == []

    def test_closing_a_transport_twice_is_allowed(self, transport: Transport) -> None:
        transport.close()
        transport.close()
