"""Messages that are held for longer than RabbitMQ allows: its `consumer_timeout` ends no connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from celeriac.app import Celeriac
from celeriac.message import Ack, DeadLetter, Reject, Requeue, Verdict
from celeriac.ports import Consumer, ConsumeSpec
from celeriac.queues import Queue
from celeriac.testing.conformance.fixtures import ack, nothing_arrives, take
from celeriac.testing.conformance.messages import new_queue, texts, to_queue
from celeriac.testing.worker import start_worker
from celeriac.transports.amqp import AmqpTransport
from celeriac.transports.amqp.consumer import AmqpConsumer
from servers import RabbitServer

DEADLINE_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
GRANTED_SECONDS = 5.0


@pytest.fixture
def impatient(rabbitmq_server: RabbitServer) -> Iterator[None]:
    """A RabbitMQ that grants 6 s and looks twice a second, on channels that are opened from now on."""

    def change(name: str, milliseconds: int) -> None:
        rabbitmq_server.evaluate(f"application:set_env(rabbit, {name}, {milliseconds}).")

    change("channel_tick_interval", 500)
    change("consumer_timeout", int(GRANTED_SECONDS * 1000))
    yield
    change("channel_tick_interval", 60_000)
    change("consumer_timeout", 1_800_000)


@pytest.fixture
def transport(rabbitmq_url: str, impatient: None) -> Iterator[AmqpTransport]:
    transport = AmqpTransport(rabbitmq_url, {})
    yield transport
    transport.close()


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> Queue:
    """A queue that says how long we may hold what it sends."""
    kind = getattr(request, "param", "classic")
    return msgspec.structs.replace(new_queue(), arguments={"x-queue-type": kind, "x-consumer-timeout": 1500})


on_both_kinds = pytest.mark.parametrize("queue", ["classic", "quorum"], indirect=True)


async def consume(transport: AmqpTransport, queue: Queue, prefetch: int = 0) -> AmqpConsumer:
    spec = ConsumeSpec(queues=(queue,), node="one@integration", prefetch=prefetch, lease_seconds=15.0)
    consumer = await transport.consumer(spec)
    assert isinstance(consumer, AmqpConsumer)
    return consumer


async def send(transport: AmqpTransport, queue: Queue, *words: str) -> None:
    await transport.producer().asend([to_queue(queue, word) for word in words], deadline=DEADLINE_SECONDS)


async def live(consumer: Consumer, seconds: float) -> None:
    """Do for a while what a node does while its tasks run; the connection may not end."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await asyncio.sleep(0.3)
        await consumer.renew()


async def grow_old(consumer: AmqpConsumer, count: int = 1) -> None:
    """Wait until copies stand for so many deliveries."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(consumer._custody) < count:
            await asyncio.sleep(0.2)
            await consumer.renew()


@on_both_kinds
async def test_a_message_may_be_held_for_several_times_what_rabbitmq_grants(
    transport: AmqpTransport, queue: Queue
) -> None:
    await send(transport, queue, "slow")
    consumer = await consume(transport, queue)
    held = await take(consumer, 1)
    number = consumer._epoch

    await live(consumer, 2.5 * GRANTED_SECONDS)
    assert consumer.holds(held[0])
    await ack(consumer, held)

    assert consumer._epoch == number, "the connection was lost"
    assert await nothing_arrives(consumer)
    await consumer.close()
    assert transport.size(queue.name) == 0


@on_both_kinds
async def test_what_a_node_held_goes_back_when_the_node_dies(transport: AmqpTransport, queue: Queue) -> None:
    # Given a node that holds a message for long
    await send(transport, queue, "slow")
    holder = await consume(transport, queue)
    [held] = await take(holder, 1)
    heir = await consume(transport, queue)
    await grow_old(holder)

    # When it dies
    assert holder._stream is not None
    holder._stream.abort(ConnectionResetError("killed by the test"))

    # Then another one gets it, once, and sees that it is no first attempt
    [again] = await asyncio.wait_for(heir.receive(1), PATIENCE_SECONDS)
    assert (texts([again]), again.redelivered, again.attempt) == (["slow"], True, 2)
    assert (again.exchange, again.routing_key) == (held.exchange, held.routing_key)
    await ack(heir, [again])
    assert await nothing_arrives(heir)
    await heir.close()
    await holder.close()


async def test_a_verdict_from_before_a_loss_does_not_hit_what_came_after(
    transport: AmqpTransport, queue: Queue
) -> None:
    # Given messages in custody, and the loss of the connection
    await send(transport, queue, "one", "two")
    consumer = await consume(transport, queue)
    before = await take(consumer, 2)
    await grow_old(consumer, 2)
    assert consumer._stream is not None
    consumer._stream.abort(ConnectionResetError("cut by the test"))
    with pytest.raises(Exception, match="was lost"):
        await consumer.receive(1)
    after = await take(consumer, 2)

    # When the old ones are settled in every way
    await consumer.settle([(before[0], Ack()), (before[1], Reject())])
    await grow_old(consumer, 2)
    await consumer.settle([(before[0], Requeue()), (before[1], Ack())])

    # Then the new ones are ours, and alone in the world
    assert sorted(texts(after)) == sorted(texts(before))
    assert all(map(consumer.holds, after))
    assert not any(map(consumer.holds, before))
    await ack(consumer, after)
    assert await nothing_arrives(consumer)
    await consumer.close()
    assert transport.size(queue.name) == 0


@on_both_kinds
@pytest.mark.parametrize(
    ("verdict", "attempt"),
    [(Requeue(), 2), (Requeue(untouched=True), 1), (Requeue(willing=True), 2)],
    ids=["requeue", "untouched", "willing"],
)
async def test_what_was_held_for_long_can_go_back(
    transport: AmqpTransport, queue: Queue, verdict: Verdict, attempt: int
) -> None:
    await send(transport, queue, "slow")
    consumer = await consume(transport, queue)
    held = await take(consumer, 1)
    await grow_old(consumer)

    await consumer.settle([(held[0], verdict)])

    again = await take(consumer, 1)
    assert (texts(again), again[0].attempt) == (["slow"], attempt)
    await ack(consumer, again)
    assert await nothing_arrives(consumer)
    await consumer.close()


async def test_what_was_held_for_long_goes_back_when_its_node_stops(
    transport: AmqpTransport, queue: Queue
) -> None:
    await send(transport, queue, "slow")
    consumer = await consume(transport, queue)
    await take(consumer, 1)
    await grow_old(consumer)

    await consumer.close()

    other = await consume(transport, queue)
    again = await take(other, 1)
    assert texts(again) == ["slow"]
    await ack(other, again)
    assert await nothing_arrives(other)
    await other.close()


async def test_what_was_held_for_long_can_become_a_dead_letter(
    transport: AmqpTransport, queue: Queue
) -> None:
    await send(transport, queue, "slow")
    consumer = await consume(transport, queue)
    held = await take(consumer, 1)
    await grow_old(consumer)

    await consumer.settle([(held[0], DeadLetter(reason="broken"))])

    assert await nothing_arrives(consumer)
    [letter] = await asyncio.to_thread(transport.graveyard().find, queue.name)
    assert (letter.reason, letter.envelope.body) == ("broken", held[0].envelope.body)
    await consumer.close()


async def test_what_was_held_for_long_can_be_refused(transport: AmqpTransport, queue: Queue) -> None:
    # Given a queue with an exchange for what is refused
    refused = new_queue()
    arguments = {**queue.arguments, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": refused.name}
    queue = msgspec.structs.replace(queue, arguments=arguments)
    elsewhere = await consume(transport, refused)
    await send(transport, queue, "slow")
    consumer = await consume(transport, queue)
    held = await take(consumer, 1)
    await grow_old(consumer)

    await consumer.settle([(held[0], Reject())])

    assert texts(await take(elsewhere, 1)) == ["slow"]
    assert await nothing_arrives(consumer)
    await consumer.close()
    await elsewhere.close()


@on_both_kinds
async def test_no_more_is_fetched_while_old_messages_are_held(transport: AmqpTransport, queue: Queue) -> None:
    # Given a consumer that holds all that it may
    await send(transport, queue, *map(str, range(6)))
    consumer = await consume(transport, queue, prefetch=2)
    held = await take(consumer, 2)

    # When copies stand for what it holds
    await grow_old(consumer, 2)

    # Then nothing else is fetched, until one is done
    assert await nothing_arrives(consumer)
    assert transport.size(queue.name) == 4
    await ack(consumer, held[:1])
    [third] = await take(consumer, 1)
    assert transport.size(queue.name) == 3
    await consumer.set_prefetch(4)
    rest = [third, *await take(consumer, 2)]
    await ack(consumer, [held[1], *rest])
    assert texts(await take(consumer, 1)) == ["5"]
    await consumer.close()


async def test_a_time_that_rabbitmq_has_told_is_minded(rabbitmq_url: str, impatient: None) -> None:
    # Given a queue that says nothing of RabbitMQ's patience
    transport, queue = AmqpTransport(rabbitmq_url, {}), new_queue()
    await send(transport, queue, "slow")
    consumer = await consume(transport, queue)
    await take(consumer, 1)

    # When RabbitMQ has lost it once
    with pytest.raises(Exception, match="timed out"):
        await asyncio.wait_for(consumer.receive(1), PATIENCE_SECONDS)
    again = await take(consumer, 1)

    # Then it does not a second time
    number = consumer._epoch
    await live(consumer, 2 * GRANTED_SECONDS)
    assert consumer._epoch == number
    await ack(consumer, again)
    await consumer.close()
    transport.close()


def test_a_late_task_runs_once_however_long_it_takes(
    rabbitmq_url: str, impatient: None, tmp_path: Path, queue: Queue
) -> None:
    # Given tasks that are acknowledged late, on a RabbitMQ that ends connections after 5 s
    app = Celeriac("slow", broker=rabbitmq_url, backend=f"sqlite:///{tmp_path}/results.db")
    app.conf.update(task_queues=[queue], task_default_queue=queue.name, worker_lease_seconds=1.5)
    runs: list[int] = []

    @app.task(acks_late=True)
    def slow(seconds: float) -> float:
        runs.append(1)
        time.sleep(seconds)
        return seconds

    with app, start_worker(app, pool="threads", concurrency=1):
        # When they take longer, or wait for longer behind each other
        results = [slow.delay(2 * GRANTED_SECONDS), slow.delay(0.0)]

        # Then each is run once
        assert [result.get(timeout=PATIENCE_SECONDS) for result in results] == [2 * GRANTED_SECONDS, 0.0]
    assert len(runs) == 2
