"""What leases, fencing and native delay owe."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from celeriac.message import Ack, Delivery, Park, Requeue, Start
from celeriac.ports import Consumer, Producer, Transport
from celeriac.queues import Queue
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
    read_line,
    texts,
    to_queue,
)

LEASE_SECONDS = 1.0
RETURN_SECONDS = 4 * LEASE_SECONDS  # the lease, a renewal that notices, and a slow machine


@contextlib.asynccontextmanager
async def renewing(consumer: Consumer) -> AsyncIterator[None]:
    """Renew the consumer's leases three times per lease, as a node does."""

    async def renew() -> None:
        while True:
            await consumer.renew()
            await asyncio.sleep(LEASE_SECONDS / 3)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(renew())
        try:
            yield
        finally:
            task.cancel()


class LeaseTests(TransportFixtures):
    """Nothing is lost and nothing doubled when a node dies, stalls or waits."""

    @pytest.mark.parametrize("started", [False, True], ids=["unstarted", "started"])
    async def test_what_a_killed_consumer_held_returns(
        self,
        broker_url: str,
        transport: Transport,
        transport_options: Mapping[str, Any],  # Any: transport options
        producer: Producer,
        consume: Consume,
        queue: Queue,
        started: bool,
    ) -> None:
        if not transport.caps.across_processes:
            pytest.skip("this transport lives in one process")
        await producer.asend([to_queue(queue, str(n)) for n in range(3)], deadline=DEADLINE_SECONDS)
        with holding_process(
            broker_url, transport_options, queue, count=3, lease_seconds=LEASE_SECONDS, start=started
        ) as peer:
            assert await asyncio.to_thread(read_line, peer) == "holding"
            peer.kill()
            killed_at = time.monotonic()

            async with consume(queue, lease_seconds=LEASE_SECONDS) as consumer, renewing(consumer):
                if started and not transport.caps.leases:
                    assert await nothing_arrives(consumer)  # acknowledged when they were started
                    return
                got = await take(consumer, 3)
                took = time.monotonic() - killed_at
                await ack(consumer, got)
                assert await nothing_arrives(consumer)

        assert sorted(texts(got)) == ["0", "1", "2"]
        assert all(delivery.redelivered for delivery in got)
        assert [delivery.lost for delivery in got] == [started] * 3
        assert took < RETURN_SECONDS
        if transport.caps.leases:
            assert [delivery.attempt for delivery in got] == [2, 2, 2]

    async def test_what_a_killed_consumer_held_returns_without_any_other_consumer(
        self,
        broker_url: str,
        transport: Transport,
        transport_options: Mapping[str, Any],  # Any: transport options
        producer: Producer,
        consume: Consume,
        queue: Queue,
    ) -> None:
        if not (transport.caps.across_processes and transport.caps.leases):
            pytest.skip("nobody has to take over here")
        await producer.asend([to_queue(queue, str(n)) for n in range(3)], deadline=DEADLINE_SECONDS)
        with holding_process(
            broker_url, transport_options, queue, count=3, lease_seconds=LEASE_SECONDS
        ) as peer:
            assert await asyncio.to_thread(read_line, peer) == "holding"
            peer.kill()
            peer.wait(PATIENCE_SECONDS)

            reaped = 0
            async with asyncio.timeout(PATIENCE_SECONDS):
                while reaped < 3:
                    reaped += await asyncio.to_thread(transport.reap)

        assert (reaped, transport.size(queue.name)) == (3, 3)
        async with consume(queue) as consumer:
            got = await take(consumer, 3)
            await ack(consumer, got)
        assert texts(got) == ["0", "1", "2"]
        assert [(delivery.redelivered, delivery.attempt) for delivery in got] == [(True, 2)] * 3

    async def test_a_renewed_lease_holds_however_long(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        if not transport.caps.leases:
            pytest.skip("this broker watches connections instead")
        await producer.asend([to_queue(queue)], deadline=DEADLINE_SECONDS)

        async with consume(queue, lease_seconds=0.5) as holder:
            held = await take(holder, 1)
            async with consume(queue, lease_seconds=0.5, node="two@conformance") as other:
                for _ in range(8):
                    await asyncio.sleep(0.15)
                    await holder.renew()
                    await other.renew()
                assert await nothing_arrives(other)
                await holder.renew()
                await ack(holder, held)

        assert transport.size(queue.name) == 0

    @pytest.mark.parametrize("late", [Ack(), Requeue(), Start()], ids=["ack", "requeue", "start"])
    async def test_a_late_verdict_of_a_zombie_changes_nothing(
        self,
        transport: Transport,
        producer: Producer,
        consume: Consume,
        queue: Queue,
        late: Ack | Requeue | Start,
    ) -> None:
        if not transport.caps.leases:
            pytest.skip("this broker watches connections instead")
        await producer.asend([to_queue(queue, "contested")], deadline=DEADLINE_SECONDS)

        async with consume(queue, lease_seconds=0.3) as zombie:
            held = await take(zombie, 1)
            async with consume(queue, lease_seconds=30.0, node="heir@conformance") as heir:
                inherited = await self._inherit(heir)
                await zombie.settle([(held[0], late)])  # it has woken up, far too late

                await heir.settle([(inherited, Requeue(untouched=True))])
                [again] = await take(heir, 1)
                assert await nothing_arrives(heir)
                assert await nothing_arrives(zombie)
                await ack(heir, [again])
                assert await nothing_arrives(heir)

        assert inherited.redelivered
        assert inherited.attempt == 2
        assert again.lost is False
        assert transport.size(queue.name) == 0

    async def test_a_zombie_that_wakes_up_works_on(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        if not transport.caps.leases:
            pytest.skip("this broker watches connections instead")
        await producer.asend([to_queue(queue, "first")], deadline=DEADLINE_SECONDS)

        async with consume(queue, lease_seconds=0.3, prefetch=1) as zombie:
            [lost] = await take(zombie, 1)
            assert zombie.holds(lost)
            async with consume(queue, lease_seconds=30.0, node="heir@conformance") as heir:
                inherited = await self._inherit(heir)
                assert heir.holds(inherited)
                await ack(heir, [inherited])
                assert not heir.holds(inherited)
            await zombie.renew()
            assert not zombie.holds(lost)

            await producer.asend([to_queue(queue, "second")], deadline=DEADLINE_SECONDS)
            got = await take(zombie, 1)
            await ack(zombie, got)

        assert texts(got) == ["second"]
        assert transport.size(queue.name) == 0

    async def test_a_zombie_of_which_only_a_part_was_taken_has_lost_all(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        if not transport.caps.leases:
            pytest.skip("this broker watches connections instead")
        await producer.asend([to_queue(queue, text) for text in ("begun", "not")], deadline=DEADLINE_SECONDS)

        async with consume(queue, lease_seconds=LEASE_SECONDS) as zombie:
            held = {delivery.envelope.body: delivery for delivery in await take(zombie, 2)}
            await zombie.settle([(held[b"begun"], Start())])
            reaped = 0
            async with asyncio.timeout(PATIENCE_SECONDS):
                while reaped < 1:  # what had begun stays where nobody can tell of it
                    reaped += await asyncio.to_thread(transport.reap)
            async with renewing(zombie):
                again = await take(zombie, 2)
                await zombie.settle([(delivery, Ack()) for delivery in held.values()])  # far too late
                await ack(zombie, again)
                assert await nothing_arrives(zombie)

        assert sorted((d.envelope.body, d.lost) for d in again) == [(b"begun", True), (b"not", False)]

    async def test_a_parked_message_comes_when_it_is_due(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        if not transport.caps.native_delay:
            pytest.skip("this transport leaves waiting to the node")
        async with consume(queue, prefetch=1) as consumer:
            await producer.asend(
                [to_queue(queue, "later"), to_queue(queue, "now")], deadline=DEADLINE_SECONDS
            )
            [first] = await take(consumer, 1)
            until = time.time() + 0.6
            await consumer.settle([(first, Park(until=until))])
            [between] = await take(consumer, 1)  # the parked one takes no room below the prefetch limit
            await ack(consumer, [between])
            assert (transport.size(queue.name), transport.ready(queue.name)) == (1, 0)

            [second] = await take(consumer, 1)
            came_at = time.time()
            await ack(consumer, [second])

        assert texts([first, between, second]) == ["later", "now", "later"]
        assert until <= came_at < until + 1.5
        assert (second.redelivered, second.attempt) == (False, 1)

    async def test_a_message_is_sent_to_come_later(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        if not transport.caps.native_delay:
            pytest.skip("this transport leaves waiting to the node")
        due = time.time() + 0.6
        async with consume(queue) as consumer:
            await producer.asend(
                [
                    to_queue(queue, "later", not_before=due),
                    to_queue(queue, "past", not_before=time.time() - 5),
                    to_queue(queue, "now"),
                ],
                deadline=DEADLINE_SECONDS,
            )
            got: list[tuple[str, float]] = []
            while len(got) < 3:
                deliveries = await asyncio.wait_for(consumer.receive(10), PATIENCE_SECONDS)
                got.extend((text, time.time()) for text in texts(deliveries))
                await ack(consumer, deliveries)

        assert [text for text, _ in got] == ["past", "now", "later"]
        assert due <= got[2][1] < due + 1.5

    async def test_what_waits_for_its_time_can_be_looked_at(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        if not transport.caps.native_delay:
            assert transport.parked(queue.name, 10) == []
            return
        due = time.time() + 3600
        later = [
            to_queue(queue, text, not_before=due + hours) for text, hours in (("b", 2), ("a", 1), ("c", 3))
        ]
        await producer.asend([*later, to_queue(queue, "now")], deadline=DEADLINE_SECONDS)

        async with consume(queue) as consumer, asyncio.timeout(PATIENCE_SECONDS):
            await ack(consumer, await take(consumer, 1))
            # On Redis whoever receives them parks them.
            while transport.ready(queue.name):  # noqa: ASYNC110 - the broker has no event for it
                await asyncio.sleep(0.01)
        found = transport.parked(queue.name, 2)

        assert texts([delivery for delivery, _ in found]) == ["a", "b"]
        assert [moment for _, moment in found] == pytest.approx([due + 1, due + 2], abs=0.01)
        assert {delivery.queue for delivery, _ in found} == {queue.name}
        assert transport.size(queue.name) == 3

    async def test_purge_and_size_mean_delayed_messages_too(
        self, transport: Transport, producer: Producer, queue: Queue
    ) -> None:
        if not transport.caps.native_delay:
            pytest.skip("this transport leaves waiting to the node")
        await producer.asend(
            [to_queue(queue, "later", not_before=time.time() + 3600), to_queue(queue, "now")],
            deadline=DEADLINE_SECONDS,
        )
        assert transport.size(queue.name) == 2

        assert transport.purge(queue.name) == 2

        assert transport.size(queue.name) == 0

    async def _inherit(self, heir: Consumer) -> Delivery:
        """Return the message that the heir takes over once the zombie's lease has run out."""
        async with asyncio.timeout(PATIENCE_SECONDS), renewing(heir):
            [inherited] = await heir.receive(1)
        return inherited
