"""What producers and exchanges owe."""

from __future__ import annotations

import asyncio
import datetime
import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from celeriac.errors import BrokerUnreachable
from celeriac.message import Envelope, Once, Outgoing, Props
from celeriac.ports import ConsumeSpec, Producer, Transport
from celeriac.queues import Binding, Queue
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
    envelope,
    new_exchange,
    new_queue,
    process,
    read_line,
    texts,
    to_queue,
)
from celeriac.transports import connect


class PublishTests(TransportFixtures):
    """What producers owe."""

    async def test_what_is_numbered_is_there_once(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        if not transport.caps.once:
            pytest.skip("does not count")
        row = new_queue().name

        def numbered(text: str, number: float, row: str = row) -> Outgoing:
            return msgspec.structs.replace(to_queue(queue, text), once=Once(row, number))

        producer.send([numbered("1", 1.5), numbered("again", 1.5)], deadline=DEADLINE_SECONDS)
        producer.send([numbered("again", 1.5)], deadline=DEADLINE_SECONDS)
        other = transport.producer()
        other.send([numbered("2", 1.75), to_queue(queue, "3")], deadline=DEADLINE_SECONDS)
        other.send([numbered("earlier", 1.0), numbered("4", 1.0, row + "x")], deadline=DEADLINE_SECONDS)
        other.close()

        async with consume(queue) as consumer:
            found = await take(consumer, 4)
            assert sorted(texts(found)) == ["1", "2", "3", "4"]
            await ack(consumer, found)
            assert await nothing_arrives(consumer)

    async def test_a_message_arrives_as_it_was_sent(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        sent = Envelope(
            headers={
                "lang": "py",
                "task": "proj.add",
                "id": "11111111-1111-4111-8111-111111111111",
                "eta": None,
                "retries": 0,
                "timelimit": [None, 1.5],
                "ignore_result": False,
                "argsrepr": "(1, 'é')",
                "stamps": {"customer": ["a", "b"], "nested": {"n": 2**40}},
            },
            body=bytes(range(256)),
            content_type="application/x-python-serialize",
            content_encoding="binary",
            properties=Props(
                correlation_id="11111111-1111-4111-8111-111111111111",
                reply_to="9be2fc2c-6ae2-3ec0-aac6-66218e41707c",
                delivery_mode=1,
                priority=0,
                message_id="m-1",
                delivery_tag="d8a0e92d-6e8c-45c5-ac91-a526b7a074ce",
                extra={"app_id": "conformance"},
            ),
        )

        async with consume(queue) as consumer:
            await producer.asend(
                [Outgoing(envelope=sent, routing_key=queue.name, queue=queue)], deadline=DEADLINE_SECONDS
            )
            [got] = await take(consumer, 1)
            await ack(consumer, [got])

        got.envelope.properties.delivery_tag = sent.properties.delivery_tag  # may be the transport's own
        assert got.envelope == sent
        assert (got.queue, got.exchange, got.routing_key) == (queue.name, "", queue.name)
        assert (got.redelivered, got.attempt, got.defect, got.lost) == (False, 1, None, False)

    async def test_a_large_message_arrives(self, producer: Producer, consume: Consume, queue: Queue) -> None:
        text = "x" * 3_000_000

        async with consume(queue) as consumer:
            await producer.asend([to_queue(queue, text)], deadline=DEADLINE_SECONDS)
            [got] = await take(consumer, 1)
            await ack(consumer, [got])

        assert got.envelope.body == text.encode()

    async def test_a_batch_arrives_in_order(self, producer: Producer, consume: Consume, queue: Queue) -> None:
        await producer.asend([to_queue(queue, str(n)) for n in range(250)], deadline=DEADLINE_SECONDS)

        async with consume(queue) as consumer:
            got = await take(consumer, 250)
            await ack(consumer, got)

        assert texts(got) == [str(n) for n in range(250)]

    async def test_the_age_of_what_waits_longest_is_known(
        self, transport: Transport, producer: Producer, queue: Queue
    ) -> None:
        if not transport.caps.ages:
            assert transport.oldest(queue.name) is None
            return
        now = int(time.time())
        for_soon = to_queue(queue, "for soon", timestamp=now - 900)
        for_soon.envelope.headers["eta"] = datetime.datetime.fromtimestamp(now - 5, datetime.UTC).isoformat()
        assert transport.oldest(queue.name) is None

        await producer.asend([to_queue(queue, "untold")], deadline=DEADLINE_SECONDS)
        assert transport.oldest(queue.name) is None
        batch = [for_soon, *(to_queue(queue, timestamp=now - age) for age in (60, 30))]
        await producer.asend(batch, deadline=DEADLINE_SECONDS)

        assert transport.oldest(queue.name) == now - 60

    async def test_what_is_sent_before_anybody_consumes_is_kept(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        producer.send([to_queue(queue, "early")], deadline=DEADLINE_SECONDS)
        assert (transport.size(queue.name), transport.ready(queue.name)) == (1, 1)

        async with consume(queue) as consumer:
            got = await take(consumer, 1)
            await ack(consumer, got)

        assert texts(got) == ["early"]

    async def test_a_closed_producer_opens_again(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        producer.send([to_queue(queue, "one")], deadline=DEADLINE_SECONDS)
        producer.close()
        producer.close()

        producer.send([to_queue(queue, "two")], deadline=DEADLINE_SECONDS)

        async with consume(queue) as consumer:
            got = await take(consumer, 2)
            await ack(consumer, got)
        assert texts(got) == ["one", "two"]

    async def test_one_producer_serves_many_threads(
        self, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        def send(thread: int) -> None:
            for n in range(25):
                producer.send([to_queue(queue, f"{thread}:{n}")], deadline=DEADLINE_SECONDS)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join, PATIENCE_SECONDS)

        async with consume(queue) as consumer:
            got = texts(await take(consumer, 100))
        assert sorted(got) == sorted(f"{thread}:{n}" for thread in range(4) for n in range(25))
        for number in range(4):
            own = [text for text in got if text.startswith(f"{number}:")]
            assert own == [f"{number}:{n}" for n in range(25)]

    async def test_asends_run_side_by_side(self, producer: Producer, consume: Consume, queue: Queue) -> None:
        await asyncio.gather(
            *(producer.asend([to_queue(queue, str(n))], deadline=DEADLINE_SECONDS) for n in range(20))
        )

        async with consume(queue) as consumer:
            got = await take(consumer, 20)
            await ack(consumer, got)
        assert sorted(texts(got), key=int) == [str(n) for n in range(20)]

    async def test_a_producer_survives_a_fork(
        self,
        broker_url: str,
        transport: Transport,
        transport_options: Mapping[str, Any],
        consume: Consume,
        queue: Queue,
    ) -> None:
        if not transport.caps.across_processes:
            pytest.skip("this transport lives in one process")

        with process("publish_around_fork", broker_url, dict(transport_options), queue) as peer:
            said = await asyncio.to_thread(read_line, peer)

        assert said == "child exited 0"
        async with consume(queue) as consumer:
            got = await take(consumer, 7)
            await ack(consumer, got)
        assert texts(got) == ["before", "child-0", "child-1", "child-2", "parent-0", "parent-1", "parent-2"]

    def test_an_unreachable_broker_is_told_in_time_and_without_its_password(
        self, unreachable_url: str | None, transport_options: Mapping[str, Any], queue: Queue
    ) -> None:
        if unreachable_url is None:
            pytest.skip("this broker is always there")
        transport = connect(unreachable_url, transport_options)
        producer = transport.producer()

        began = time.monotonic()
        with pytest.raises(BrokerUnreachable) as caught:
            producer.send([to_queue(queue)], deadline=1.0)
        took = time.monotonic() - began

        producer.close()
        transport.close()
        assert took < 2.0
        assert "sekrit" not in str(caught.value)
        assert "sekrit" not in transport.address
        assert transport.address in str(caught.value)

    async def test_consuming_from_an_unreachable_broker_is_told_too(
        self, unreachable_url: str | None, transport_options: Mapping[str, Any], queue: Queue
    ) -> None:
        if unreachable_url is None:
            pytest.skip("this broker is always there")
        transport = connect(unreachable_url, transport_options)

        with pytest.raises(BrokerUnreachable) as caught:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await transport.consumer(ConsumeSpec(queues=(queue,), node="one@conformance"))

        transport.close()
        assert "sekrit" not in str(caught.value)

    async def test_a_direct_exchange_routes_by_equal_key(self, producer: Producer, consume: Consume) -> None:
        exchange = new_exchange("direct")
        red = new_queue(exchange=exchange, routing_key="red")
        blue = new_queue(exchange=exchange, routing_key="blue")

        async with consume(red, blue) as consumer:
            await producer.asend(
                [
                    Outgoing(envelope=envelope(key), exchange=exchange.name, routing_key=key, queue=queue)
                    for key, queue in (("red", red), ("blue", blue), ("blue", blue))
                ],
                deadline=DEADLINE_SECONDS,
            )
            got = await take(consumer, 3)
            assert await nothing_arrives(consumer)
            await ack(consumer, got)

        assert sorted((d.queue, d.envelope.body) for d in got) == sorted(
            [(red.name, b"red"), (blue.name, b"blue"), (blue.name, b"blue")]
        )
        assert {(d.exchange, d.routing_key) for d in got} == {(exchange.name, "red"), (exchange.name, "blue")}

    async def test_a_topic_exchange_routes_by_pattern(self, producer: Producer, consume: Consume) -> None:
        exchange = new_exchange("topic")
        feeds = new_queue(exchange=exchange, routing_key="feed.#")
        images = new_queue(exchange=exchange, routing_key="*.image.*")

        async with consume(feeds, images) as consumer:
            await producer.asend(
                [
                    Outgoing(envelope=envelope(key), exchange=exchange.name, routing_key=key, queue=queue)
                    for key, queue in (
                        ("feed.import.daily", feeds),
                        ("web.image.small", images),
                        ("feed.image.small", feeds),
                    )
                ],
                deadline=DEADLINE_SECONDS,
            )
            got = await take(consumer, 4)
            assert await nothing_arrives(consumer)
            await ack(consumer, got)

        assert sorted((d.queue, d.routing_key) for d in got) == sorted(
            [
                (feeds.name, "feed.import.daily"),
                (feeds.name, "feed.image.small"),
                (images.name, "web.image.small"),
                (images.name, "feed.image.small"),
            ]
        )

    async def test_a_fanout_exchange_reaches_every_queue(self, producer: Producer, consume: Consume) -> None:
        exchange = new_exchange("fanout")
        one = new_queue(exchange=exchange)
        two = new_queue(exchange=exchange)

        async with consume(one) as first, consume(two, node="two@conformance") as second:
            await producer.asend(
                [Outgoing(envelope=envelope("all"), exchange=exchange.name, routing_key="", queue=one)],
                deadline=DEADLINE_SECONDS,
            )
            got = [*(await take(first, 1)), *(await take(second, 1))]
            await ack(first, got[:1])
            await ack(second, got[1:])

        assert [d.queue for d in got] == [one.name, two.name]
        assert texts(got) == ["all", "all"]

    async def test_a_queue_may_be_bound_more_than_once(self, producer: Producer, consume: Consume) -> None:
        exchange = new_exchange("direct")
        queue = new_queue(
            exchange=exchange, routing_key="a", bindings=(Binding(exchange=exchange, routing_key="b"),)
        )

        async with consume(queue) as consumer:
            await producer.asend(
                [
                    Outgoing(envelope=envelope(key), exchange=exchange.name, routing_key=key, queue=queue)
                    for key in ("a", "b")
                ],
                deadline=DEADLINE_SECONDS,
            )
            got = await take(consumer, 2)
            await ack(consumer, got)

        assert texts(got) == ["a", "b"]
