"""What is sent for later to quorum queues waits in RabbitMQ, and arrives whatever others make or delete."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.errors import TaskRevokedError, TransportError
from celeriac.message import Outgoing
from celeriac.ports import Consumer, ConsumeSpec
from celeriac.queues import Exchange, Queue
from celeriac.testing.conformance.fixtures import ack, take
from celeriac.testing.conformance.messages import to_queue
from celeriac.testing.worker import start_worker
from celeriac.transports.amqp import AmqpTransport, delays, topology
from celeriac.transports.amqp.connection import Refused
from servers import RabbitServer

LATE_SECONDS = 10.0  # it takes milliseconds where nothing else runs
DEADLINE_SECONDS = 30.0  # a machine with other work makes 28 quorum queues in some seconds

pytestmark = pytest.mark.together("delays")


@pytest.fixture(scope="module")
def urls() -> dict[str, str]:
    return {}


@pytest.fixture
def url(rabbitmq_server: RabbitServer, urls: dict[str, str]) -> str:
    """One virtual host for all: RabbitMQ makes the levels once."""
    if rabbitmq_server.address not in urls:
        urls[rabbitmq_server.address] = rabbitmq_server.fresh_url()
    return urls[rabbitmq_server.address]


@pytest.fixture
def connect(url: str) -> Iterator[Callable[..., AmqpTransport]]:
    """Return a function that returns a transport of its own."""
    with ExitStack() as stack:

        def connect(url: str = url, **options: Any) -> AmqpTransport:
            return stack.enter_context(closing(AmqpTransport(url, options)))

        yield connect


@pytest.fixture
def transport(connect: Callable[..., AmqpTransport]) -> AmqpTransport:
    return connect()


def topic_queue(kind: str = "quorum") -> Queue:
    """Return a queue that no other test uses, behind a topic exchange of its own."""
    name = f"delays-{uuid.uuid4().hex[:12]}"
    exchange = Exchange(name=name, type="topic")
    return Queue(name=name, exchange=exchange, routing_key=name, arguments={"x-queue-type": kind})


def later(queue: Queue, seconds: float) -> Outgoing:
    """Return a message that is due after so long."""
    message = to_queue(queue, not_before=time.time() + seconds)
    message.exchange = queue.exchange.name
    return message


def send(transport: AmqpTransport, *messages: Outgoing) -> None:
    transport.producer().send(messages, deadline=DEADLINE_SECONDS)


async def consume(transport: AmqpTransport, *queues: Queue, siblings: tuple[Queue, ...] = ()) -> Consumer:
    return await transport.consumer(ConsumeSpec(queues=queues, node="one@delays", siblings=siblings))


def is_there(transport: AmqpTransport, exchange: str) -> bool:
    try:
        transport._producer.ask(*topology.look_at_exchange(exchange))
    except Refused:
        return False
    return True


async def test_a_message_waits_in_rabbitmq_and_arrives_with_its_own_address(transport: AmqpTransport) -> None:
    queue = topic_queue()
    send(transport, later(queue, 0.5))  # to be declared takes its time the first time
    sent = time.time()

    send(transport, later(queue, 2.5))  # nobody has ever consumed

    waiting = transport.size(queue.name)
    consumer = await consume(transport, queue)
    first, delivery = await take(consumer, 2)
    took = time.time() - sent
    await ack(consumer, [first, delivery])
    await consumer.close()
    assert waiting == 1
    assert took >= 2.0  # the worker holds it for the rest
    assert (delivery.exchange, delivery.routing_key) == (queue.name, queue.name)
    assert (delivery.attempt, delivery.redelivered) == (1, False)


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_what_is_for_a_direct_exchange_or_a_classic_queue_is_there_at_once(
    transport: AmqpTransport, kind: str
) -> None:
    queue = topic_queue(kind)
    if kind == "quorum":
        queue = Queue(name=queue.name, arguments=queue.arguments)

    send(transport, later(queue, 60.0))

    assert transport.size(queue.name) == 1


@pytest.mark.parametrize(
    "deletion",
    [
        ("queue.delete", 0, "celery_delayed_0", False, False, False),
        ("exchange.delete", 0, "celery_delayed_27", False, False),
    ],
    ids=["level", "way in"],
)
async def test_what_somebody_has_deleted_is_declared_anew_and_nothing_is_lost(
    transport: AmqpTransport, connect: Callable[..., AmqpTransport], deletion: topology.Method
) -> None:
    queue = topic_queue()
    send(transport, later(queue, 0.0))
    send(transport, later(queue, 1.0))  # from now on it knows the way

    connect()._producer.ask(*deletion)
    try:
        send(transport, later(queue, 1.5))
    except TransportError:  # as with every exchange that is deleted under its senders
        send(transport, later(queue, 1.5))

    consumer = await consume(transport, queue)
    await ack(consumer, await take(consumer, 3))
    await consumer.close()


async def test_a_worker_of_a_classic_queue_takes_part_where_the_app_has_a_quorum_queue(
    rabbitmq_server: RabbitServer, connect: Callable[..., AmqpTransport]
) -> None:
    transport = connect(rabbitmq_server.fresh_url(), delay_queues="classic")
    classic, quorum = topic_queue("classic"), topic_queue()

    alone = await consume(transport, classic)
    before = is_there(transport, "celery_delayed_27")
    await alone.close()
    beside = await consume(transport, classic, siblings=(classic, quorum))
    send(transport, Outgoing(
        envelope=later(classic, 0).envelope,
        exchange="celery_delayed_27",
        routing_key=delays.routing_key(0, classic.routing_key),
    ))  # fmt: skip
    [delivery] = await take(beside, 1)
    await ack(beside, [delivery])
    await beside.close()

    assert not before
    assert delivery.routing_key == classic.routing_key


async def test_levels_of_another_type_are_used_as_they_are(
    rabbitmq_server: RabbitServer, connect: Callable[..., AmqpTransport]
) -> None:
    url = rabbitmq_server.fresh_url()
    other, transport, queue = connect(url, delay_queues="classic"), connect(url), topic_queue()
    send(other, later(topic_queue(), 3600.0))

    consumer = await consume(transport, queue)
    send(transport, later(queue, 1.5))

    waiting = transport.size("celery_delayed_0")
    await ack(consumer, await take(consumer, 1))
    await consumer.close()
    assert waiting == 1


async def test_without_the_permission_messages_go_to_their_queue_at_once(
    rabbitmq_server: RabbitServer, connect: Callable[..., AmqpTransport], caplog: pytest.LogCaptureFixture
) -> None:
    vhost = rabbitmq_server.fresh_url().rpartition("/")[2]
    rabbitmq_server.add_user("modest", "modest", "")
    rabbitmq_server.allow("modest", vhost, configure="^delays-.*")
    transport = connect(f"amqp://modest:modest@{rabbitmq_server.address}/{vhost}")
    queue = topic_queue()

    consumer = await consume(transport, queue)
    send(transport, later(queue, 3600.0))
    await ack(consumer, await take(consumer, 1))
    await consumer.close()

    told = [record.getMessage() for record in caplog.records]
    assert any(text.startswith("What clients of Celery send for later may not arrive") for text in told)
    assert any("is held by the worker that gets it" in text for text in told)


def test_a_task_runs_when_it_is_due_and_its_retry_and_its_revocation_count(url: str) -> None:
    queue = topic_queue()
    app = Celeriac("delays", broker=url, backend="rpc://", task_queues=[queue], task_default_queue=queue.name)

    @app.task(bind=True)
    def twice(self: Any, sent: float) -> list[float]:
        if not self.request.retries:
            raise self.retry(countdown=1.1)
        return [time.time() - sent, self.request.delivery_info["routing_key"] == queue.routing_key]

    with start_worker(app, pool="threads"):
        result = twice.apply_async((time.time(),), countdown=1.1)
        doomed = twice.apply_async((time.time(),), countdown=1.1)
        doomed.revoke()

        late, at_home = result.get(timeout=60)
        with pytest.raises(TaskRevokedError):
            doomed.get(timeout=60)
    app.close()
    assert at_home
    assert 2.2 <= late < 2.2 + LATE_SECONDS
