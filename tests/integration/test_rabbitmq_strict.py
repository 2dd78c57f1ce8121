"""RabbitMQ taken at its word: what it returns, refuses, counts and forgets, and unexpected content."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from celeriac.errors import EncodeError, PublishTimeout, TransportError
from celeriac.message import Ack, DeadLetter, Delivery, Outgoing, Requeue, Start, Verdict
from celeriac.ports import Consumer, ConsumeSpec
from celeriac.queues import Exchange, Queue
from celeriac.testing.conformance.fixtures import ack, nothing_arrives, take
from celeriac.testing.conformance.messages import envelope, new_queue, texts, to_queue
from celeriac.transports.amqp import AmqpTransport, frames, topology
from celeriac.transports.amqp.consumer import AmqpConsumer
from celeriac.transports.amqp.link import Link
from celeriac.wire.task import RESENT_HEADER
from faults.proxy import Proxy
from servers import RabbitServer, free_port, until

DEADLINE_SECONDS = 10.0
PATIENCE_SECONDS = 20.0


@pytest.fixture
def transport(rabbitmq_url: str) -> Iterator[AmqpTransport]:
    transport = AmqpTransport(rabbitmq_url, {})
    yield transport
    transport.close()


@pytest.fixture
def queue() -> Queue:
    return new_queue()


SettleInDoubt = Callable[[Consumer, Delivery, Verdict], Awaitable[None]]


@pytest.fixture
def settle_in_doubt(monkeypatch: pytest.MonkeyPatch) -> SettleInDoubt:
    """Have a delivery settled by a copy that arrives and whose confirm does not."""

    async def settle(consumer: Consumer, held: Delivery, verdict: Verdict) -> None:
        assert isinstance(consumer, AmqpConsumer)
        send = consumer._producer.asend

        async def send_in_doubt(batch: list[Outgoing], *, deadline: float) -> None:
            await send(batch, deadline=deadline)
            raise PublishTimeout("it may or may not have arrived")

        with monkeypatch.context() as patch:
            patch.setattr(consumer._producer, "asend", send_in_doubt)
            with pytest.raises(PublishTimeout):
                await consumer.settle([(held, verdict)])

    return settle


def topic_queue(binding: str) -> Queue:
    exchange = Exchange(name=f"x-{uuid.uuid4()}", type="topic")
    return new_queue(exchange=exchange, routing_key=binding)


def through(queue: Queue, routing_key: str, text: str = "hello") -> Outgoing:
    """Return a message for the exchange of a queue."""
    message = to_queue(queue, text)
    message.exchange, message.routing_key = queue.exchange.name, routing_key
    return message


async def consume(transport: AmqpTransport, *queues: Queue) -> Consumer:
    return await transport.consumer(ConsumeSpec(queues=queues, node="one@strict"))


def delete(transport: AmqpTransport, queue: Queue) -> None:
    transport.producer().ask("queue.delete", 0, queue.name, False, False, False)


def publish_raw(transport: AmqpTransport, queue: Queue, properties: bytes, body: bytes = b"{}") -> None:
    """Send a message whose properties are these bytes, past our own encoder."""
    turn = threading.Condition(threading.Lock())
    with turn:
        link = Link(transport.quiet_addresses[0], turn, lambda event: None)
        until = time.monotonic() + DEADLINE_SECONDS
        link.connect(until)
        link.core.open_channel(1)
        link.core.write(frames.method(1, "basic.publish", 0, "", queue.name, False, False))
        link.core.write(frames.content(1, properties, body, link.core.frame_max))
        link.call(until, 1, "basic.qos", 0, 0, False)  # the broker has read what is before
        link.close()


class TestWhatNoQueueTakes:
    def test_threads_that_send_to_a_deleted_queue_all_find_it_again(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue, "gone with its queue")], deadline=DEADLINE_SECONDS)
        delete(transport, queue)

        with ThreadPoolExecutor(8) as threads:
            for sent in [
                threads.submit(producer.send, [to_queue(queue, str(n))] * 5, deadline=DEADLINE_SECONDS)
                for n in range(8)
            ]:
                sent.result()

        assert transport.size(queue.name) == 40

    def test_without_confirms_what_came_back_goes_out_with_what_is_sent_next(
        self, rabbitmq_url: str, queue: Queue
    ) -> None:
        transport = AmqpTransport(rabbitmq_url, {"confirm_publish": False})
        producer, other = transport.producer(), new_queue()
        producer.send([to_queue(queue, "gone with its queue"), to_queue(other)], deadline=DEADLINE_SECONDS)
        delete(transport, queue)
        producer.send([to_queue(queue, "back")], deadline=DEADLINE_SECONDS)

        deadline = time.monotonic() + PATIENCE_SECONDS
        while transport.size(queue.name) != 1:  # the broker says when it likes what it could not place
            assert time.monotonic() < deadline
            producer.send([to_queue(other)], deadline=DEADLINE_SECONDS)
        transport.close()

    def test_a_queue_behind_an_exchange_is_declared_again_too(self, transport: AmqpTransport) -> None:
        queue, producer = topic_queue("a.#"), transport.producer()
        producer.send([through(queue, "a.b")], deadline=DEADLINE_SECONDS)
        delete(transport, queue)

        producer.send([through(queue, "a.c")], deadline=DEADLINE_SECONDS)

        assert transport.size(queue.name) == 1

    def test_a_routing_key_that_nobody_has_bound_is_told_in_the_log(
        self, transport: AmqpTransport, caplog: pytest.LogCaptureFixture
    ) -> None:
        queue, producer = topic_queue("a.#"), transport.producer()

        producer.send([through(queue, "b"), through(queue, "a")], deadline=DEADLINE_SECONDS)

        assert transport.size(queue.name) == 1
        [record] = caplog.records
        assert record.levelno == logging.WARNING
        assert f"routing key 'b' from exchange '{queue.exchange.name}'" in record.getMessage()

    async def test_a_deleted_queue_is_consumed_from_again_while_another_is_busy(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        busy, producer = new_queue(), transport.producer()
        await producer.asend([to_queue(busy, "busy")] * 20, deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue, busy)
        await take(consumer, 1)
        delete(transport, queue)
        await producer.asend([to_queue(queue, "after")], deadline=DEADLINE_SECONDS)

        seen: list[str] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "after" not in seen:  # and something always waits in the busy one
                await producer.asend([to_queue(busy, "busy")], deadline=DEADLINE_SECONDS)
                seen += texts(await consumer.receive(1))
        await consumer.close()


class TestQuestions:
    def test_an_answer_goes_to_whom_it_is_for(self, transport: AmqpTransport, queue: Queue) -> None:
        transport.producer().send([to_queue(queue)], deadline=DEADLINE_SECONDS)

        def ask(name: str) -> set[int]:
            return {transport.size(name) for _ in range(40)}

        with ThreadPoolExecutor(6) as threads:
            missing = [threads.submit(ask, f"nowhere-{n}") for n in range(3)]
            there = [threads.submit(ask, queue.name) for _ in range(3)]
            assert {frozenset(asked.result()) for asked in missing} == {frozenset({0})}
            assert {frozenset(asked.result()) for asked in there} == {frozenset({1})}

    def test_a_refused_declaration_hurts_nobody_elses(self, transport: AmqpTransport, queue: Queue) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)
        refused = new_queue(name=queue.name, durable=False)
        producer.close()  # forgets what was declared

        def send_refused() -> str:
            with pytest.raises(TransportError) as caught:
                producer.send([to_queue(refused)], deadline=DEADLINE_SECONDS)
            return str(caught.value)

        with ThreadPoolExecutor(8) as threads:
            bad = [threads.submit(send_refused) for _ in range(4)]
            good = [
                threads.submit(producer.send, [to_queue(new_queue())], deadline=DEADLINE_SECONDS)
                for _ in range(30)
            ]
            for sent in good:
                sent.result()
            told = {sent.result() for sent in bad}

        [text] = told
        assert "PRECONDITION_FAILED" in text
        assert "agree on its settings, or delete it" in text

    def test_dead_letters_are_read_from_the_broker_that_lives(self, rabbitmq_url: str, queue: Queue) -> None:
        transport = AmqpTransport(f"amqp://127.0.0.1:{free_port()}//;{rabbitmq_url}", {})

        assert transport.graveyard().find(queue.name) == []

        transport.close()


# Headers as they may lie in a queue: RabbitMQ has no objections to any of them.
def table(*entries: bytes) -> bytes:
    """Return properties that are nothing but a header table."""
    content = b"".join(entries)
    return b"\x20\x00" + len(content).to_bytes(4) + content


def nested(depth: int) -> bytes:
    content = b"\x01kV"
    for _ in range(depth):
        content = b"\x01kF" + len(content).to_bytes(4) + content
    return table(content)


POISON: dict[str, bytes] = {
    "a time past the end of time": table(b"\x01tT" + b"\xff" * 8),
    "a key that is no text": table(b"\x02\xff\xfeV"),
    "a text that is no text": table(b"\x04taskS\x00\x00\x00\x02\xff\xfe"),
    "tables in tables": nested(100),
    "a content type that is no text": b"\x80\x00\x02\xff\xfe",
    "numbers of every size": table(
        b"\x01aL" + b"\xff" * 8, b"\x01bi" + b"\xff" * 4, b"\x01cD\xff" + b"\xff" * 4
    ),
    "no properties": b"\x00\x00",
}


class TestPoison:
    @pytest.mark.parametrize("poison", POISON)
    async def test_whatever_lies_in_a_queue_can_be_kept_as_a_dead_letter(
        self, transport: AmqpTransport, queue: Queue, poison: str
    ) -> None:
        consumer = await consume(transport, queue)
        await asyncio.to_thread(publish_raw, transport, queue, POISON[poison], b"what it said")
        await transport.producer().asend([to_queue(queue, "next")], deadline=DEADLINE_SECONDS)
        held = await take(consumer, 2)

        await consumer.settle([(held[0], DeadLetter(reason="poison"))])
        await ack(consumer, held[1:])
        await consumer.close()

        [letter] = transport.graveyard().find(queue.name)
        reason, kept = letter.reason, letter.envelope
        assert (reason, kept.body) == ("poison", b"what it said")
        assert transport.size(queue.name) == 0

    @pytest.mark.parametrize("poison", POISON)
    async def test_whatever_lies_in_a_queue_can_be_sent_once_more(
        self, transport: AmqpTransport, queue: Queue, poison: str
    ) -> None:
        consumer = await consume(transport, queue)
        await asyncio.to_thread(publish_raw, transport, queue, POISON[poison], b"what it said")
        held = await take(consumer, 1)

        await consumer.settle([(held[0], Requeue())])
        [again] = await take(consumer, 1)
        await ack(consumer, [again])
        await consumer.close()

        assert (again.envelope.body, again.attempt) == (b"what it said", 2)

    async def test_what_cannot_be_written_again_stays_and_hurts_nobody_else(
        self, transport: AmqpTransport, queue: Queue, caplog: pytest.LogCaptureFixture
    ) -> None:
        full = b"\x03bigS" + (131_000).to_bytes(4) + b"x" * 131_000  # no room for a word of ours
        consumer = await consume(transport, queue)
        await asyncio.to_thread(publish_raw, transport, queue, table(full))
        await transport.producer().asend([to_queue(queue, "next")], deadline=DEADLINE_SECONDS)
        held = await take(consumer, 2)

        await consumer.settle([(delivery, DeadLetter(reason="broken")) for delivery in held])
        await consumer.close()

        assert [letter.envelope.body for letter in transport.graveyard().find(queue.name)] == [b"next"]
        assert transport.size(queue.name) == 1
        [told] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert f"queue {queue.name} cannot be sent to queue {queue.name}.dead" in told
        assert "goes back to its own when this worker ends" in told

    def test_headers_that_no_frame_holds_are_the_callers_error(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        producer, large = transport.producer(), to_queue(queue)
        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)
        session = producer._own.session
        large.envelope.headers["photo"] = "x" * 140_000

        with pytest.raises(EncodeError, match=r"have 140\d\d\d bytes, and RabbitMQ takes 13"):
            producer.send([large], deadline=DEADLINE_SECONDS)

        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)
        assert producer._own.session is session  # nobody hung up
        assert transport.size(queue.name) == 2


class TestCounting:
    async def test_what_was_never_started_is_not_counted_by_a_quorum_queue_either(
        self, transport: AmqpTransport
    ) -> None:
        queue = new_queue(arguments={"x-queue-type": "quorum"})
        await transport.producer().asend([to_queue(queue)], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)

        for _ in range(4):  # as many workers that end in good order
            [held] = await take(consumer, 1)
            await consumer.settle([(held, Requeue(untouched=True))])
        [held] = await take(consumer, 1)
        await ack(consumer, [held])
        await consumer.close()

        assert held.attempt == 1

    async def test_what_goes_back_once_its_quorum_queue_is_let_go_of_is_not_counted_and_goes_back_once(
        self, transport: AmqpTransport
    ) -> None:
        # Given a worker that stops with many messages in hand, seen or not, behind one that runs
        queue = new_queue(arguments={"x-queue-type": "quorum"})
        batch = [to_queue(queue, str(n)) for n in range(121)]
        await transport.producer().asend(batch, deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        running, *waiting = await take(consumer, 61)
        await consumer.cancel_queue(queue.name)
        await consumer.settle([(each, Requeue(untouched=True)) for each in waiting])

        # When it ends right after that
        await ack(consumer, [running])
        await consumer.close()

        # Then others get each of them as if it had been nowhere
        other = await consume(transport, queue)
        got = await take(other, 120)
        assert sorted(texts(got), key=int) == [str(n) for n in range(1, 121)]
        assert {each.attempt for each in got} == {1}
        assert await nothing_arrives(other)
        await ack(other, got)
        await other.close()

    async def test_what_was_sent_back_in_doubt_and_is_sent_again_says_so(
        self, transport: AmqpTransport, settle_in_doubt: SettleInDoubt
    ) -> None:
        # Given a message that goes back to a quorum queue as a copy, whose confirm does not come
        queue = new_queue(arguments={"x-queue-type": "quorum"})
        await transport.producer().asend([to_queue(queue)], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        [held] = await take(consumer, 1)
        await settle_in_doubt(consumer, held, Requeue(untouched=True))

        # When it is sent once more
        await consumer.settle([(held, Requeue(untouched=True))])

        # Then whoever gets both knows the second one, and who gets either knows that there may be two
        both = await take(consumer, 2)
        assert [RESENT_HEADER in each.envelope.headers for each in both] == [False, True]
        assert [(each.attempt, each.redelivered) for each in both] == [(1, True), (1, True)]
        await ack(consumer, both)
        await consumer.close()

    async def test_a_queue_without_acknowledgements_loses_nothing_that_is_given_back(
        self, transport: AmqpTransport
    ) -> None:
        queue = new_queue(no_ack=True)
        await transport.producer().asend([to_queue(queue, text) for text in "abc"], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        held = await take(consumer, 2)

        await consumer.cancel_queue(queue.name)
        held += await take(consumer, 1)
        await consumer.settle(
            [(held[0], DeadLetter(reason="broken")), (held[1], Requeue(untouched=True)), (held[2], Requeue())]
        )
        await consumer.close()

        assert [letter.envelope.body for letter in transport.graveyard().find(queue.name)] == [b"a"]
        assert transport.size(queue.name) == 2

    async def test_a_dead_letter_is_confirmed_also_where_publishing_is_not(
        self, rabbitmq_server: RabbitServer, rabbitmq_url: str, queue: Queue
    ) -> None:
        vhost = rabbitmq_url.rpartition("/")[2]
        policy = '{"max-length": 1, "overflow": "reject-publish"}'
        rabbitmq_server.ctl("set_policy", "-p", vhost, "full", r"\.dead$", policy, "--apply-to", "queues")
        transport = AmqpTransport(rabbitmq_url, {"confirm_publish": False})
        await transport.producer().asend([to_queue(queue, text) for text in "ab"], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        held = await take(consumer, 2)
        await consumer.settle([(held[0], DeadLetter(reason="broken"))])

        with pytest.raises(TransportError, match="nack"):
            await consumer.settle([(held[1], DeadLetter(reason="broken"))])

        await consumer.close()
        assert transport.size(queue.name) == 1
        transport.close()


class TestConsumersThatBegin:
    """RabbitMQ's channel dies of a consumer that is ended before it has said that it has begun."""

    @pytest.mark.parametrize("kind", ["classic", "quorum"])
    async def test_who_is_cancelled_while_a_consumer_begins_leaves_it_to_be_ended(
        self, rabbitmq_server: RabbitServer, rabbitmq_url: str, queue: Queue, kind: str
    ) -> None:
        with Proxy(rabbitmq_server.port) as proxy:
            url = rabbitmq_url.replace(f":{rabbitmq_server.port}/", f":{proxy.port}/")
            transport, other = AmqpTransport(url, {}), new_queue(arguments={"x-queue-type": kind})
            await transport.producer().asend([to_queue(queue)], deadline=DEADLINE_SECONDS)
            consumer = await consume(transport, queue)
            held = await take(consumer, 1)

            # Given a consumer that begins, and whose beginning is cancelled before RabbitMQ has heard of it
            proxy.block("to_server")
            beginning = asyncio.create_task(consumer.add_queue(other))
            await asyncio.sleep(0)
            beginning.cancel()

            # When its queue is let go of, as a worker does that stops
            ending = asyncio.create_task(consumer.cancel_queue(other.name))
            await asyncio.wait([beginning])
            await asyncio.sleep(0)
            proxy.heal()
            await ending

            # Then the connection lives, and with it the acknowledgement
            await ack(consumer, held)
            await consumer.close()
            assert transport.size(queue.name) == 0
            transport.close()

    async def test_who_is_full_while_a_consumer_begins_has_it_pause_afterwards(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        # Given a worker with two slots taken, which has more in hand
        await transport.producer().asend([to_queue(queue, text) for text in "abc"], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        assert isinstance(consumer, AmqpConsumer)
        first, second, third = await take(consumer, 3)
        await consumer.set_prefetch(2)
        await consumer.settle([(first, Start()), (second, Start())])

        # When one ends and the next begins in the same moment
        await asyncio.gather(consumer.settle([(first, Ack())]), consumer.settle([(third, Start())]))

        # Then it gets nothing more until another has ended, and the connection lives
        await consumer._call(("basic.qos", 0, 1, True))  # RabbitMQ has read what is before
        await transport.producer().asend([to_queue(queue, "d")], deadline=DEADLINE_SECONDS)
        assert await nothing_arrives(consumer)
        await ack(consumer, [second, third])
        await ack(consumer, await take(consumer, 1))
        await consumer.close()


class TestDeadLetters:
    async def test_a_dead_letter_that_was_sent_twice_in_doubt_is_one(
        self, transport: AmqpTransport, queue: Queue, settle_in_doubt: SettleInDoubt
    ) -> None:
        # Given a dead letter of which nobody has confirmed the first copy, and another one
        await transport.producer().asend([to_queue(queue, text) for text in "ab"], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        held = await take(consumer, 2)
        await settle_in_doubt(consumer, held[0], DeadLetter(reason="broken"))
        await consumer.settle([(each, DeadLetter(reason="broken")) for each in held])
        await consumer.close()
        assert transport.size(f"{queue.name}.dead") == 3
        graveyard = transport.graveyard()

        # When they are looked at and sent again
        letters = graveyard.find(queue.name)
        moved = graveyard.retry(queue.name, {letter.id for letter in letters})

        # Then there are two
        assert [letter.envelope.body for letter in letters] == [b"b", b"a"]
        assert len(moved) == transport.size(queue.name) == 2
        assert transport.size(f"{queue.name}.dead") == 0

    async def test_of_two_letters_for_one_message_the_second_that_is_sent_again_says_so(
        self, transport: AmqpTransport, queue: Queue
    ) -> None:
        # Given a message that two workers have given up, as RabbitMQ had not heard of the first, and another
        message, other = to_queue(queue, "a"), to_queue(queue, "b")
        await transport.producer().asend([message, other, message], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        held = await take(consumer, 3)
        await consumer.settle([(each, DeadLetter(reason="broken")) for each in held])
        graveyard = transport.graveyard()

        # When all are sent again
        graveyard.retry(queue.name, {letter.id for letter in graveyard.find(queue.name)})

        # Then whoever gets the second of them knows it
        again = await take(consumer, 3)
        marked = [(each.envelope.body, RESENT_HEADER in each.envelope.headers) for each in again]
        assert marked == [(b"a", False), (b"b", False), (b"a", True)]
        await ack(consumer, again)
        await consumer.close()


class TestRefusals:
    @pytest.fixture
    def setting(self, rabbitmq_server: RabbitServer) -> Iterator[Callable[[str, int], None]]:
        """Change a number in RabbitMQ's settings, for channels that are opened from now on."""
        before: dict[str, str] = {}

        def change(name: str, value: int | str) -> None:
            rabbitmq_server.evaluate(f"application:set_env(rabbit, {name}, {value}).")

        def change_for_now(name: str, value: int) -> None:
            was = rabbitmq_server.evaluate(f"application:get_env(rabbit, {name}, 60000).")
            before[name] = was.removeprefix("{ok, ").removesuffix("}")
            change(name, value)

        yield change_for_now
        for name, value in before.items():
            change(name, value)

    async def test_a_delivery_held_too_long_is_told_with_what_to_raise_and_comes_again(
        self, transport: AmqpTransport, queue: Queue, setting: Callable[[str, int], None]
    ) -> None:
        setting("channel_tick_interval", 500)
        setting("consumer_timeout", 1000)
        await transport.producer().asend([to_queue(queue, "slow")], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        held = await take(consumer, 1)

        with pytest.raises(TransportError, match=r"timed out.*raise consumer_timeout") as caught:
            await asyncio.wait_for(consumer.receive(1), PATIENCE_SECONDS)
        await consumer.renew()
        [again] = await take(consumer, 1)
        await ack(consumer, held)  # void
        await ack(consumer, [again])
        assert await nothing_arrives(consumer)
        await consumer.close()

        assert caught.value.retryable
        assert (texts([again]), again.attempt) == (["slow"], 2)
        assert transport.size(queue.name) == 0

    def test_a_message_larger_than_rabbitmq_takes_is_told_and_hurts_nobody_else(
        self, transport: AmqpTransport, queue: Queue, setting: Callable[[str, int], None]
    ) -> None:
        setting("max_message_size", 10_000)
        producer = transport.producer()
        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)

        with pytest.raises(TransportError, match=r"larger than.*raise max_message_size") as caught:
            producer.send([to_queue(queue, "x" * 20_000)], deadline=DEADLINE_SECONDS)

        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)
        assert not caught.value.retryable
        assert transport.size(queue.name) == 2

    async def test_an_operator_may_close_connections(
        self, rabbitmq_server: RabbitServer, transport: AmqpTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        await producer.asend([to_queue(queue, "before")], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        held = await take(consumer, 1)

        vhost = transport.address.rpartition("/")[2]
        await asyncio.to_thread(
            rabbitmq_server.ctl, "close_all_connections", "--vhost", vhost, "closed by the test"
        )
        with pytest.raises(TransportError, match=r"CONNECTION_FORCED.*closed by the test") as caught:
            await asyncio.wait_for(consumer.receive(1), PATIENCE_SECONDS)
        await producer.asend([to_queue(queue, "after")], deadline=DEADLINE_SECONDS)
        again = await take(consumer, 2)
        await ack(consumer, again)
        await consumer.close()

        assert caught.value.retryable
        assert texts(held) == ["before"]
        assert sorted(texts(again)) == ["after", "before"]

    async def test_what_was_received_is_settled_while_publishing_is_blocked(
        self, rabbitmq_server: RabbitServer, transport: AmqpTransport, queue: Queue
    ) -> None:
        await transport.producer().asend([to_queue(queue)], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        alarm = "{{resource_limit, memory, node()}, []}"
        rabbitmq_server.evaluate(f"rabbit_alarm:set_alarm({alarm}).")
        try:
            await ack(consumer, await take(consumer, 1))
            await consumer.close()
        finally:
            rabbitmq_server.evaluate("rabbit_alarm:clear_alarm({resource_limit, memory, node()}).")

        assert transport.size(queue.name) == 0


async def test_a_consumer_looks_after_its_queue_while_it_begins_anew(transport: AmqpTransport) -> None:
    # Given a queue that heeds a limit only when a consumer begins
    queue = new_queue(arguments={"x-queue-type": "quorum"})
    consumer = await transport.consumer(ConsumeSpec(queues=(queue,), node="one@strict", prefetch=1))

    # When the limit changes while it is asked whether something waits, of which RabbitMQ's answers overtake
    # one another
    for limit in range(2, 82):
        await asyncio.gather(consumer.set_prefetch(limit), consumer.renew())

    # Then everybody has got the answer to his own question
    await transport.producer().asend([to_queue(queue, "after")], deadline=DEADLINE_SECONDS)
    got = await take(consumer, 1)
    await ack(consumer, got)
    await consumer.close()
    assert texts(got) == ["after"]


async def test_what_a_quorum_queue_that_was_made_again_believes_to_have_sent_is_given_back(
    transport: AmqpTransport,
) -> None:
    # Given a quorum queue that is deleted and made again at once, of which RabbitMQ tells nobody
    queue = new_queue(arguments={"x-queue-type": "quorum"})
    consumer = await transport.consumer(ConsumeSpec(queues=(queue,), node="one@strict", prefetch=10))
    delete(transport, queue)
    for method in topology.declarations(queue):
        transport.producer().ask(*method)

    # When it sends less than it may, so that nothing waits in it
    await transport.producer().asend([to_queue(queue, "unseen")] * 3, deadline=DEADLINE_SECONDS)
    for _ in range(10):
        await consumer.renew()

    # Then it comes nevertheless, and so does what comes later
    got = await take(consumer, 3)
    await ack(consumer, got)
    await transport.producer().asend([to_queue(queue, "later")], deadline=DEADLINE_SECONDS)
    got += await take(consumer, 1)
    await ack(consumer, got[3:])
    await consumer.close()
    assert texts(got) == ["unseen"] * 3 + ["later"]


async def test_who_holds_something_of_a_silent_quorum_queue_goes_on_holding_it(
    transport: AmqpTransport,
) -> None:
    queue = new_queue(arguments={"x-queue-type": "quorum"})
    consumer = await transport.consumer(ConsumeSpec(queues=(queue,), node="one@strict", prefetch=10))
    await transport.producer().asend([to_queue(queue, "held")], deadline=DEADLINE_SECONDS)
    held = await take(consumer, 1)

    for _ in range(10):
        await consumer.renew()

    assert consumer.holds(held[0])
    await ack(consumer, held)
    await consumer.close()
    assert transport.size(queue.name) == 0


def test_every_envelope_that_comes_can_go_out_again(transport: AmqpTransport, queue: Queue) -> None:
    message = to_queue(queue)
    message.envelope = envelope("é" * 10)
    message.envelope.headers["deep"] = {"list": [1, 2.5, None, b"\xff", {"x": True}]}
    transport.producer().send([message], deadline=DEADLINE_SECONDS)

    async def round_trip() -> None:
        consumer = await consume(transport, queue)
        [held] = await take(consumer, 1)
        await consumer.settle([(held, Requeue(willing=True))])
        [again] = await take(consumer, 1)
        await ack(consumer, [again])
        await consumer.close()
        assert again.envelope == held.envelope

    asyncio.run(round_trip())


_SENDS_AND_ENDS = """
import sys
from celeriac.transports.amqp import AmqpTransport
from celeriac.testing.conformance.messages import new_queue, to_queue

url, name, confirm = sys.argv[1:]
producer = AmqpTransport(url, {"confirm_publish": confirm == "on"}).producer()
queue = new_queue(name=name)
producer.send([to_queue(queue)], deadline=10.0)
print("connected", flush=True)
sys.stdin.readline()
for _ in range(2000):
    producer.send([to_queue(queue)], deadline=10.0)
print("sent", flush=True)
"""


def test_a_program_that_ends_leaves_nothing_behind_that_was_sent(
    rabbitmq_server: RabbitServer, transport: AmqpTransport, queue: Queue, rabbitmq_url: str
) -> None:
    command = [sys.executable, "-c", _SENDS_AND_ENDS, rabbitmq_url, queue.name, "off"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == "connected\n"
        rabbitmq_server.freeze()  # what is sent now lies in buffers

        print(file=program.stdin, flush=True)
        assert program.stdout.readline() == "sent\n"
        with pytest.raises(subprocess.TimeoutExpired):  # until RabbitMQ has taken everything in
            program.wait(1.0)
        rabbitmq_server.thaw()

        assert program.wait(PATIENCE_SECONDS) == 0
    # RabbitMQ says how much waits before it has worked off what has come.
    until(lambda: transport.size(queue.name) == 2001 or None, PATIENCE_SECONDS, "2,001 messages")
