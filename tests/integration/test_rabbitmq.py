"""RabbitMQ at its worst: it dies, hangs, refuses, forgets queues, runs out of memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac.errors import BrokerUnreachable, EncodeError, PublishTimeout, TransportError
from celeriac.message import Ack, DeadLetter, Delivery, Requeue, Start, Verdict
from celeriac.ports import Consumer, ConsumeSpec
from celeriac.queues import Exchange, Queue, direct_queue
from celeriac.testing.conformance.fixtures import ack, nothing_arrives, take
from celeriac.testing.conformance.messages import envelope, new_queue, texts, to_queue
from celeriac.transports.amqp import AmqpTransport
from servers import RabbitServer, free_port

DEADLINE_SECONDS = 10.0
BACK_SECONDS = 60.0  # RabbitMQ needs some seconds to start


@pytest.fixture
def transport(rabbitmq_url: str) -> Iterator[AmqpTransport]:
    transport = AmqpTransport(rabbitmq_url, {})
    yield transport
    transport.close()


@pytest.fixture
def queue() -> Queue:
    return new_queue()


async def consume(transport: AmqpTransport, *queues: Queue, **terms: float) -> Consumer:
    return await transport.consumer(
        ConsumeSpec(
            queues=queues,
            node="one@integration",
            prefetch=int(terms.get("prefetch", 0)),
            lease_seconds=terms.get("lease_seconds", 15.0),
        )
    )


async def take_after_trouble(consumer: Consumer, count: int) -> list[Delivery]:
    """Receive as a node does: a lost connection is told, and the next call tries again."""
    taken: list[Delivery] = []
    async with asyncio.timeout(BACK_SECONDS):
        while len(taken) < count:
            try:
                taken.extend(await consumer.receive(count - len(taken)))
            except TransportError:
                await asyncio.sleep(0.1)
    return taken


class TestBrokerThatDies:
    async def test_confirmed_messages_and_the_consumer_survive_its_kill(
        self, rabbitmq_server: RabbitServer, transport: AmqpTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue, str(n)) for n in range(3)], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue, prefetch=1)
        [held] = await take(consumer, 1)

        await asyncio.to_thread(rabbitmq_server.kill)
        with pytest.raises(TransportError, match="was lost"):
            await consumer.receive(1)
        with pytest.raises(BrokerUnreachable, match="No connection to RabbitMQ"):
            await consumer.receive(1)
        with pytest.raises(BrokerUnreachable, match="No connection to RabbitMQ"):
            producer.send([to_queue(queue, "meanwhile")], deadline=DEADLINE_SECONDS)
        await ack(consumer, [held])  # void: it is RabbitMQ's again

        with pytest.raises(BrokerUnreachable, match="No connection to RabbitMQ"):
            await consumer.renew()

        await asyncio.to_thread(rabbitmq_server.start)
        await asyncio.gather(consumer.renew(), consumer.renew())
        again = await take(consumer, 1)
        await ack(consumer, again)
        producer.send([to_queue(queue, "after")], deadline=DEADLINE_SECONDS)
        rest = []
        for _ in range(3):
            rest += await take(consumer, 1)
            await ack(consumer, rest[-1:])
        await consumer.close()

        assert texts([held]) == texts(again) == ["0"]
        assert (again[0].redelivered, again[0].attempt) == (True, 2)
        assert texts(rest) == ["1", "2", "after"]

    async def test_a_verdict_from_before_does_not_hit_a_delivery_from_after(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        transport.producer().send([to_queue(queue, str(n)) for n in range(2)], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        before = await take(consumer, 2)
        consumer._stream.abort(ConnectionResetError("cut by the test"))  # type: ignore[attr-defined]
        await consumer.renew()  # does not hide the loss from `receive`
        after = await take_after_trouble(consumer, 2)

        await ack(consumer, before)
        await consumer.close()

        assert texts(before) == texts(after)
        assert transport.size(queue.name) == 2

    def test_a_producer_that_slept_through_a_restart_does_not_notice(
        self, rabbitmq_server: RabbitServer, transport: AmqpTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue, "before")], deadline=DEADLINE_SECONDS)

        rabbitmq_server.restart()
        producer.send([to_queue(queue, "after")], deadline=DEADLINE_SECONDS)

        assert transport.size(queue.name) == 2

    async def test_with_several_brokers_one_that_lives_is_enough(
        self, rabbitmq_url: str, queue: Queue
    ) -> None:
        transport = AmqpTransport(f"amqp://127.0.0.1:{free_port()}//;{rabbitmq_url}", {})

        transport.producer().send([to_queue(queue)], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        got = await take(consumer, 1)

        await ack(consumer, got)
        await consumer.close()
        transport.close()

    def test_a_broker_that_hangs_leaves_time_for_the_next(self, rabbitmq_url: str, queue: Queue) -> None:
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
            hung = f"amqp://127.0.0.1:{silent.getsockname()[1]}//"
            transport = AmqpTransport(f"{hung};{rabbitmq_url}", {})

            transport.producer().send([to_queue(queue)], deadline=2.0)

            assert transport.size(queue.name) == 1
            transport.close()


class TestBrokerThatHangs:
    def test_publishing_ends_within_its_budget_and_works_again_afterwards(
        self, rabbitmq_server: RabbitServer, transport: AmqpTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue, "before")], deadline=DEADLINE_SECONDS)
        rabbitmq_server.freeze()
        took = []
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(TransportError):
                producer.send([to_queue(queue, "lost or not")], deadline=0.5)
            took.append(time.monotonic() - began)

        rabbitmq_server.thaw()
        producer.send([to_queue(queue, "after")], deadline=DEADLINE_SECONDS)

        assert all(0.4 < seconds < 2.0 for seconds in took)
        assert transport.size(queue.name) >= 2

    def test_connecting_ends_within_the_budget_too(
        self, rabbitmq_server: RabbitServer, transport: AmqpTransport, queue: Queue
    ) -> None:
        rabbitmq_server.freeze()

        began = time.monotonic()
        with pytest.raises(BrokerUnreachable, match="no answer in time"):
            transport.producer().send([to_queue(queue)], deadline=0.5)

        assert 0.4 < time.monotonic() - began < 2.0
        rabbitmq_server.thaw()

    async def test_a_consumer_notices_by_the_missing_heartbeats(
        self, rabbitmq_server: RabbitServer, transport: AmqpTransport, queue: Queue
    ) -> None:
        consumer = await consume(transport, queue, lease_seconds=2.0)  # a heartbeat every second
        rabbitmq_server.freeze()

        began = time.monotonic()
        with pytest.raises(TransportError, match="nothing was heard"):
            await asyncio.wait_for(consumer.receive(1), 10.0)
        took = time.monotonic() - began
        rabbitmq_server.thaw()
        transport.producer().send([to_queue(queue, "after")], deadline=DEADLINE_SECONDS)
        got = await take_after_trouble(consumer, 1)
        await ack(consumer, got)
        await consumer.close()

        assert 1.0 < took < 4.0
        assert texts(got) == ["after"]

    async def test_an_idle_consumer_stays_connected(self, transport: AmqpTransport, queue: Queue) -> None:
        consumer = await consume(transport, queue, lease_seconds=2.0)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consumer.receive(1), 4.5)

        transport.producer().send([to_queue(queue)], deadline=DEADLINE_SECONDS)
        await ack(consumer, await take(consumer, 1))
        await consumer.close()


class TestBrokerThatRefuses:
    def test_a_wrong_password_is_told_with_what_to_check(
        self, rabbitmq_server: RabbitServer, queue: Queue
    ) -> None:
        transport = AmqpTransport(f"amqp://guest:sekrit@{rabbitmq_server.address}//", {})

        with pytest.raises(BrokerUnreachable, match=r"ACCESS_REFUSED.*check the user") as caught:
            transport.producer().send([to_queue(queue)], deadline=DEADLINE_SECONDS)

        assert "sekrit" not in str(caught.value)
        assert not caught.value.retryable
        transport.close()

    async def test_an_unknown_vhost_is_told_with_what_to_check(
        self, rabbitmq_server: RabbitServer, queue: Queue
    ) -> None:
        transport = AmqpTransport(f"amqp://guest:guest@{rabbitmq_server.address}/nowhere", {})

        with pytest.raises(BrokerUnreachable, match=r"vhost nowhere not found.*check the virtual host"):
            await consume(transport, queue)

    async def test_a_queue_that_others_declared_otherwise_is_told(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue, "first")], deadline=DEADLINE_SECONDS)
        other = new_queue(name=queue.name, durable=False)

        with pytest.raises(BrokerUnreachable, match=r"PRECONDITION_FAILED.*durable"):
            await consume(transport, other)
        producer.close()
        with pytest.raises(TransportError, match=r"PRECONDITION_FAILED.*durable") as caught:
            producer.send([to_queue(other, "second")], deadline=DEADLINE_SECONDS)
        producer.send([to_queue(queue, "third")], deadline=DEADLINE_SECONDS)

        assert not caught.value.retryable
        assert transport.size(queue.name) == 2

    def test_an_unknown_exchange_is_told_and_hurts_nobody_else(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        lost = to_queue(queue)
        lost.exchange, lost.queue = "nowhere", None

        with pytest.raises(TransportError, match=r"NOT_FOUND.*nowhere"):
            producer.send([lost], deadline=DEADLINE_SECONDS)

        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)
        assert transport.size(queue.name) == 1

    def test_a_deleted_exchange_is_told_and_declared_again_the_next_time(
        self, transport: AmqpTransport
    ) -> None:
        queue = new_queue(exchange=Exchange(name=f"x-{uuid.uuid4()}", type="topic"), routing_key="#")
        producer = transport.producer()
        message = to_queue(queue)
        message.exchange = queue.exchange.name
        producer.send([message], deadline=DEADLINE_SECONDS)
        producer.ask("exchange.delete", 0, queue.exchange.name, False, False)

        with pytest.raises(TransportError, match="NOT_FOUND"):
            producer.send([message], deadline=DEADLINE_SECONDS)

        producer.send([message], deadline=DEADLINE_SECONDS)
        assert transport.size(queue.name) == 2

    def test_a_full_queue_that_rejects_is_told(self, transport: AmqpTransport) -> None:
        queue = new_queue(arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        producer = transport.producer()
        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)

        with pytest.raises(TransportError, match="nack"):
            producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)

        assert transport.purge(queue.name) == 1
        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)

    def test_a_header_without_a_form_in_amqp_is_the_callers_error(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        bad = to_queue(queue)
        bad.envelope.headers["when"] = {1, 2}

        with pytest.raises(EncodeError, match=r"\{1, 2\}"):
            transport.producer().send([to_queue(queue), bad], deadline=DEADLINE_SECONDS)

        transport.producer().send([to_queue(queue)], deadline=DEADLINE_SECONDS)
        assert transport.size(queue.name) == 1

    def test_out_of_memory_is_told_when_the_budget_is_used_up(
        self, rabbitmq_server: RabbitServer, transport: AmqpTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)
        alarm = "{{resource_limit, memory, node()}, []}"
        rabbitmq_server.evaluate(f"rabbit_alarm:set_alarm({alarm}).")
        try:
            while "memory" not in rabbitmq_server.evaluate("rabbit_alarm:get_alarms()."):
                pass
            with pytest.raises(PublishTimeout, match=r"may or may not have arrived.*takes no messages"):
                producer.send([to_queue(queue)], deadline=4.0)  # a busy broker takes its time to say so
            with pytest.raises(PublishTimeout, match="nothing was sent"):
                producer.send([to_queue(queue)], deadline=0.3)
        finally:
            rabbitmq_server.evaluate("rabbit_alarm:clear_alarm({resource_limit, memory, node()}).")

        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)
        assert transport.size(queue.name) == 3


class TestQueuesThatVanish:
    def test_a_message_for_a_deleted_queue_finds_it_again(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue, "gone with its queue")], deadline=DEADLINE_SECONDS)
        producer.ask("queue.delete", 0, queue.name, False, False, False)

        producer.send([to_queue(queue, str(n)) for n in range(3)], deadline=DEADLINE_SECONDS)

        assert transport.size(queue.name) == 3

    async def test_a_consumer_declares_a_deleted_queue_again(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        consumer = await consume(transport, queue)
        waiting = asyncio.create_task(consumer.receive(1))
        await asyncio.sleep(0)
        producer = transport.producer()
        producer.ask("queue.delete", 0, queue.name, False, False, False)

        producer.send([to_queue(queue, "after")], deadline=DEADLINE_SECONDS)
        got = await asyncio.wait_for(waiting, DEADLINE_SECONDS)

        await ack(consumer, got)
        await consumer.close()
        assert texts(got) == ["after"]


class TestSettling:
    async def test_a_dead_letter_tells_where_it_came_from(self, transport: AmqpTransport) -> None:
        queue = new_queue(exchange=Exchange(name=f"x-{uuid.uuid4()}", type="topic"), routing_key="a.#")
        message = to_queue(queue)
        message.exchange, message.routing_key = queue.exchange.name, "a.b"
        transport.producer().send([message], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        [held] = await take(consumer, 1)

        await consumer.settle([(held, DeadLetter(reason="broken"))])
        await consumer.close()

        [letter] = transport.graveyard().find(queue.name)
        assert (letter.queue, letter.reason) == (queue.name, "broken")
        assert (letter.exchange, letter.routing_key) == (message.exchange, "a.b")
        assert time.time() - 60 < letter.at <= time.time()
        assert letter.envelope.headers == message.envelope.headers

    async def test_what_was_started_can_still_be_kept_or_run_again(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        transport.producer().send([to_queue(queue, text) for text in "ab"], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        held = await take(consumer, 2)
        await consumer.settle([(delivery, Start()) for delivery in held])

        await consumer.settle([(held[0], DeadLetter(reason="its process died")), (held[1], Requeue())])
        [again] = await take(consumer, 1)
        await ack(consumer, [again])
        assert await nothing_arrives(consumer)
        await consumer.close()

        assert (texts([again]), again.redelivered, again.attempt) == (["b"], True, 2)
        assert [letter.reason for letter in transport.graveyard().find(queue.name)] == ["its process died"]

    async def test_attempts_are_counted_where_rabbitmq_does_not(self, transport: AmqpTransport) -> None:
        queue = new_queue(exchange=Exchange(name=f"x-{uuid.uuid4()}", type="topic"), routing_key="a.#")
        message = to_queue(queue)
        message.exchange, message.routing_key = queue.exchange.name, "a.b"
        transport.producer().send([message], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)

        attempts = []
        for verdict in (Requeue(), Requeue(), Requeue(untouched=True), Requeue(), Requeue(willing=True)):
            [held] = await take(consumer, 1)
            attempts.append(held.attempt)
            await consumer.settle([(held, verdict)])
        [held] = await take(consumer, 1)
        await ack(consumer, [held])
        await consumer.close()

        assert attempts == [1, 2, 3, 4, 5]
        assert (held.attempt, held.redelivered) == (2, True)
        assert (held.exchange, held.routing_key) == (message.exchange, "a.b")
        assert held.envelope.headers == message.envelope.headers

    async def test_what_came_back_by_itself_is_counted_when_that_is_noted(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        transport.producer().send([to_queue(queue)], deadline=DEADLINE_SECONDS)

        counted = []
        for _ in range(3):  # as many nodes that die with it in hand
            lost = await consume(transport, queue)
            held = await take(lost, 1)
            if held[0].uncounted:
                await lost.settle([(held[0], Requeue(untouched=True, noted=True))])
                held = await take(lost, 1)
            counted.append((held[0].attempt, held[0].uncounted))
            await lost.close()  # RabbitMQ puts it back by itself

        assert counted == [(1, False), (2, False), (3, False)]

    async def test_quorum_queues_count_attempts_and_have_limits_of_their_own(
        self, transport: AmqpTransport
    ) -> None:
        queues = [new_queue(arguments={"x-queue-type": "quorum"}) for _ in range(2)]
        transport.producer().send(
            [to_queue(queue, str(n)) for queue in queues for n in range(2)], deadline=DEADLINE_SECONDS
        )
        consumer = await consume(transport, *queues, prefetch=2)

        held = await take(consumer, 2)
        assert [delivery.attempt for delivery in held] == [1, 1]
        assert await nothing_arrives(consumer)
        for _ in range(4):  # what is put back goes to the end
            await consumer.settle([(delivery, Requeue()) for delivery in held])
            held = await take(consumer, 2)
        await consumer.set_prefetch(4)
        held += await take(consumer, 2)
        await ack(consumer, held)
        await consumer.close()

        assert max(delivery.attempt for delivery in held) >= 3
        assert all("x-delivery-count" not in delivery.envelope.headers for delivery in held)
        assert {delivery.queue for delivery in held} == {queue.name for queue in queues}

    @pytest.mark.parametrize("kind", ["classic", "quorum"])
    async def test_what_had_not_begun_when_the_connection_was_lost_is_not_counted(
        self, transport: AmqpTransport, kind: str
    ) -> None:
        queue = new_queue(arguments={"x-queue-type": kind})
        words = ["begins", "waits"]
        transport.producer().send([to_queue(queue, word) for word in words], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue, prefetch=2)
        found = await take(consumer, 2)
        for _ in range(3):
            waiting = [delivery for delivery in found if texts([delivery]) == ["waits"]]
            consumer.came_to_nothing(waiting)  # type: ignore[attr-defined]
            consumer._stream.abort(ConnectionResetError("cut by the test"))  # type: ignore[attr-defined]
            found = await take_after_trouble(consumer, 2)
        attempts = {texts([delivery])[0]: delivery.attempt for delivery in found}
        assert attempts["waits"] == 1
        assert attempts["begins"] > 1
        assert all(delivery.redelivered for delivery in found)

        # What takes its place is counted as ever.
        noted: dict[str, Verdict] = {"begins": Ack(), "waits": Requeue(untouched=True, noted=True)}
        await consumer.settle([(delivery, noted[texts([delivery])[0]]) for delivery in found])
        [waits] = await take(consumer, 1)
        consumer._stream.abort(ConnectionResetError("cut by the test"))  # type: ignore[attr-defined]
        [again] = await take_after_trouble(consumer, 1)
        await ack(consumer, [again])
        await consumer.close()
        assert (waits.attempt, again.attempt) == (1, 2)

    @pytest.mark.parametrize("moment", ["published", "acknowledged"])
    async def test_an_original_whose_copy_is_safe_does_not_run_beside_it(
        self, transport: AmqpTransport, queue: Queue, moment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        transport.producer().send(
            [to_queue(queue, "noted"), to_queue(queue, "other")], deadline=DEADLINE_SECONDS
        )
        consumer: Any = await consume(transport, queue, prefetch=2)
        for _ in range(2):  # the second time RabbitMQ says that they were delivered, and not how often
            consumer._stream.abort(ConnectionResetError("cut by the test"))
            found = await take_after_trouble(consumer, 2)
        [noted] = [delivery for delivery in found if texts([delivery]) == ["noted"]]
        assert noted.uncounted

        # The connection breaks when the copy is confirmed: before or behind the original's acknowledgement.
        if moment == "published":
            send = consumer._producer.asend

            async def asend(*args: Any, **kwargs: Any) -> None:
                await send(*args, **kwargs)
                consumer._stream.abort(ConnectionResetError("cut by the test"))

            monkeypatch.setattr(consumer._producer, "asend", asend)
        else:
            consumer._stream.write = lambda data: consumer._stream.abort(
                ConnectionResetError("cut by the test")
            )
        await consumer.settle([(noted, Requeue(untouched=True, noted=True))])
        monkeypatch.undo()

        again = await take_after_trouble(consumer, 2)
        assert sorted(texts(again)) == ["noted", "other"]
        [copy] = [delivery for delivery in again if texts([delivery]) == ["noted"]]
        assert (copy.attempt, copy.uncounted) == (2, False)
        await ack(consumer, again)
        await nothing_arrives(consumer)
        await consumer.close()
        assert transport.size(queue.name) == 0  # both are gone

    async def test_what_no_node_had_taken_when_the_connection_was_lost_is_not_counted(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        transport.producer().send([to_queue(queue, "waits")], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        for _ in range(3):
            while not consumer._sources.turns:  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)
            consumer._stream.abort(ConnectionResetError("cut by the test"))  # type: ignore[attr-defined]
            await asyncio.sleep(0)
            with contextlib.suppress(TransportError):
                await consumer.connect()  # type: ignore[attr-defined]

        [waits] = await take_after_trouble(consumer, 1)
        await ack(consumer, [waits])
        await consumer.close()
        assert (waits.attempt, waits.redelivered) == (1, True)

    async def test_a_connection_that_is_there_after_the_end_is_not_kept(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        consumer = await consume(transport, queue)
        consumer._stream.abort(ConnectionResetError("cut by the test"))  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        connecting = asyncio.create_task(consumer.connect())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

        await consumer.close()
        with contextlib.suppress(TransportError):
            await connecting

        assert consumer._stream is None  # type: ignore[attr-defined]

    async def test_acknowledging_out_of_order_leaves_nothing(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        transport.producer().send([to_queue(queue, str(n)) for n in range(30)], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue, prefetch=30)
        held = await take(consumer, 30)

        await ack(consumer, held[5:15:2])
        await ack(consumer, held[:5])
        await ack(consumer, held[15:][::-1])
        await ack(consumer, held[6:14:2])
        assert [*consumer._outstanding] == [held[14].token[1]]  # type: ignore[attr-defined]
        await consumer.close()

        assert transport.size(queue.name) == 1

    async def test_a_queue_without_acknowledgements(self, transport: AmqpTransport) -> None:
        queue = new_queue(no_ack=True)
        transport.producer().send([to_queue(queue, str(n)) for n in range(3)], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)

        got = await take(consumer, 3)
        await ack(consumer, got)
        await consumer.close()

        assert transport.size(queue.name) == 0


class TestProducing:
    def test_without_confirms_a_batch_arrives_as_well(self, rabbitmq_url: str, queue: Queue) -> None:
        transport = AmqpTransport(rabbitmq_url, {"confirm_publish": False})

        transport.producer().send([to_queue(queue, str(n)) for n in range(500)], deadline=DEADLINE_SECONDS)
        transport.producer().send([to_queue(queue, "last")], deadline=DEADLINE_SECONDS)

        deadline = time.monotonic() + DEADLINE_SECONDS
        while transport.size(queue.name) < 501:
            assert time.monotonic() < deadline
        transport.close()

    async def test_threads_and_coroutines_share_one_connection(
        self, rabbitmq_server: RabbitServer, transport: AmqpTransport, queue: Queue
    ) -> None:
        producer = transport.producer()

        def send(name: int) -> None:
            for n in range(20):
                producer.send([to_queue(queue, f"{name}-{n}")], deadline=DEADLINE_SECONDS)

        threads = [threading.Thread(target=send, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        await asyncio.gather(
            *(producer.asend([to_queue(queue, str(n))], deadline=DEADLINE_SECONDS) for n in range(100))
        )
        for thread in threads:
            await asyncio.to_thread(thread.join)

        assert transport.size(queue.name) == 260
        vhost = transport.address.rpartition("/")[2]
        connections = "lists:append(rabbit_networking:connection_info_all([vhost]))"
        said = rabbitmq_server.evaluate(f'length([1 || {{vhost, <<"{vhost}">>}} <- {connections}]).')
        assert said == "{ok, 1}"

    async def test_a_cancelled_asend_spoils_nothing(self, transport: AmqpTransport, queue: Queue) -> None:
        producer = transport.producer()
        tasks = [
            asyncio.create_task(producer.asend([to_queue(queue, str(n))], deadline=DEADLINE_SECONDS))
            for n in range(10)
        ]
        await asyncio.sleep(0)
        for task in tasks[1::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        await producer.asend([to_queue(queue, "last")], deadline=DEADLINE_SECONDS)

        assert 6 <= transport.size(queue.name) <= 11

    def test_a_bare_queue_name_is_declared_as_celery_does(
        self, rabbitmq_server: RabbitServer, transport: AmqpTransport
    ) -> None:
        queue = direct_queue("celery")

        transport.producer().send([to_queue(queue)], deadline=DEADLINE_SECONDS)

        vhost = transport.address.rpartition("/")[2]
        seen = rabbitmq_server.ctl(
            "list_bindings", "-p", vhost, "source_name", "destination_name", "routing_key"
        )
        assert ["celery", "celery", "celery"] in [line.split("\t") for line in seen.splitlines()]
        queues = rabbitmq_server.ctl(
            "list_queues", "-p", vhost, "name", "durable", "auto_delete", "arguments", "messages_persistent"
        )
        assert ["celery", "true", "false", "[]", "1"] in [line.split("\t") for line in queues.splitlines()]
        exchanges = rabbitmq_server.ctl(
            "list_exchanges", "-p", vhost, "name", "type", "durable", "auto_delete"
        )
        assert ["celery", "direct", "true", "false"] in [line.split("\t") for line in exchanges.splitlines()]

    def test_envelopes_may_have_every_property_of_amqp(self, transport: AmqpTransport, queue: Queue) -> None:
        message = to_queue(queue)
        message.envelope = envelope("all", expiration="60000", message_id="m", priority=3, reply_to="r")
        message.envelope.properties.extra = {
            "app_id": "a",
            "type": "t",
            "timestamp": 1_800_000_000,
            "other": 1,
        }

        transport.producer().send([message], deadline=DEADLINE_SECONDS)

        async def read() -> Delivery:
            consumer = await consume(transport, queue)
            [got] = await take(consumer, 1)
            await ack(consumer, [got])
            await consumer.close()
            return got

        props = asyncio.run(read()).envelope.properties
        assert (props.expiration, props.message_id, props.priority, props.reply_to) == ("60000", "m", 3, "r")
        assert (props.extra, props.timestamp) == ({"app_id": "a", "type": "t"}, 1_800_000_000)
