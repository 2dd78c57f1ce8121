"""Peers that speak through kombu: the same queues, the same messages, in both directions."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from typing import Any

import kombu
import pytest

from celeriac.message import Delivery, Envelope, Outgoing, Props
from celeriac.ports import ConsumeSpec
from celeriac.queues import Exchange, Queue, direct_queue
from celeriac.testing.conformance.fixtures import ack, take
from celeriac.transports.amqp import AmqpTransport

DEADLINE_SECONDS = 10.0

HEADERS: dict[str, Any] = {
    "lang": "py",
    "task": "proj.add",
    "id": "a6de617e-fc0d-4d0a-b01e-2466c3ff5537",
    "shadow": None,
    "eta": None,
    "retries": 0,
    "timelimit": [None, 1.5],
    "argsrepr": "(2, 'é')",
    "ignore_result": False,
    "stamps": {"big": 2**40, "negative": -7, "nested": {"list": [1, "two", None, True]}},
}
BODY = b'[[2, 3], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


def receive(url: str, queue: Queue, count: int) -> list[Delivery]:
    async def receiving() -> list[Delivery]:
        transport = AmqpTransport(url, {})
        consumer = await transport.consumer(ConsumeSpec(queues=(queue,), node="one@kombu"))
        got = await take(consumer, count)
        await ack(consumer, got)
        await consumer.close()
        return got

    return asyncio.run(receiving())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (kombu.Queue("bare", kombu.Exchange("bare"), routing_key="bare"), direct_queue("bare")),
        (
            kombu.Queue("urgent", kombu.Exchange("urgent"), routing_key="urgent", max_priority=10),
            Queue(
                name="urgent",
                exchange=Exchange(name="urgent"),
                routing_key="urgent",
                arguments={"x-max-priority": 10},
            ),
        ),
        (
            kombu.Queue(
                "feeds",
                kombu.Exchange("media", type="topic"),
                routing_key="media.#",
                expires=60.0,
                message_ttl=5.0,
                auto_delete=True,
                durable=False,
            ),
            Queue(
                name="feeds",
                exchange=Exchange(name="media", type="topic"),
                routing_key="media.#",
                durable=False,
                auto_delete=True,
                arguments={"x-expires": 60_000, "x-message-ttl": 5_000},
            ),
        ),
    ],
    ids=["bare", "priorities", "topic"],
)
def test_queues_are_declared_alike(rabbitmq_url: str, theirs: kombu.Queue, ours: Queue) -> None:
    transport = AmqpTransport(rabbitmq_url, {})
    message = Outgoing(
        envelope=Envelope(headers={}, body=b"", properties=Props()), routing_key=ours.name, queue=ours
    )

    with kombu.Connection(rabbitmq_url) as connection:  # either may come first
        theirs(connection).declare()
        transport.producer().send([message], deadline=DEADLINE_SECONDS)
        theirs(connection).declare()

    assert transport.size(ours.name) == 1
    transport.close()


def test_kombus_messages_are_read(rabbitmq_url: str) -> None:
    queue = direct_queue("celery")
    theirs = kombu.Queue("celery", kombu.Exchange("celery"), routing_key="celery")
    with kombu.Connection(rabbitmq_url) as connection, kombu.Producer(connection) as producer:
        producer.publish(
            BODY,
            exchange="",
            routing_key="celery",
            declare=[theirs],
            content_type="application/json",
            content_encoding="utf-8",
            headers={**HEADERS, "when": datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)},
            correlation_id=HEADERS["id"],
            reply_to="somewhere",
            priority=4,
            expiration=30,
            delivery_mode=2,
        )

    [got] = receive(rabbitmq_url, queue, 1)

    assert got.envelope.headers.pop("when").date() == datetime.date(2026, 11, 21)
    assert got.envelope == Envelope(
        headers=HEADERS,
        body=BODY,
        content_type="application/json",
        content_encoding="utf-8",
        properties=Props(
            correlation_id=HEADERS["id"],
            reply_to="somewhere",
            priority=4,
            expiration="30000",
            delivery_mode=2,
        ),
    )


def test_kombu_reads_our_messages(rabbitmq_url: str) -> None:
    queue = direct_queue(f"q-{uuid.uuid4()}")
    transport = AmqpTransport(rabbitmq_url, {})
    envelope = Envelope(
        headers=HEADERS,
        body=BODY,
        properties=Props(correlation_id=HEADERS["id"], reply_to="somewhere", priority=4, expiration="30000"),
    )
    transport.producer().send(
        [Outgoing(envelope=envelope, routing_key=queue.name, queue=queue)], deadline=DEADLINE_SECONDS
    )
    transport.close()

    with kombu.Connection(rabbitmq_url) as connection, connection.channel() as channel:
        message = kombu.Queue(queue.name)(channel).get()
        assert message is not None
        message.ack()

    assert message.headers == HEADERS
    assert message.payload == [
        [2, 3],
        {},
        {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
    ]
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    props = message.properties
    assert (props["correlation_id"], props["reply_to"]) == (HEADERS["id"], "somewhere")
    assert (props["priority"], props["delivery_mode"], props["expiration"]) == (4, 2, "30000")
