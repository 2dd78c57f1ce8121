"""What an app lends of kombu; that real Celery does the same is asked in `interop/quiz/connections.py`."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Connection, Exchange, Producer, Queue

from celeriac.errors import UsageError
from celery import Celery


@pytest.fixture
def app() -> Celery:
    return Celery("kombu", broker="memory://kombu", backend="disabled", set_as_current=False)


def test_the_embedded_broker_has_no_connection_to_lend() -> None:
    app = Celery("kombu", set_as_current=False)

    with pytest.raises(UsageError, match=r"set broker_url to a server"):
        app.connection()


@pytest.mark.redis
def test_a_call_can_be_sent_to_another_broker_by_its_connection(app: Celery, redis_url: str) -> None:
    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    with Connection(redis_url) as connection:
        add.apply_async((1, 2), task_id="by-connection", connection=connection)
        add.apply_async((3, 4), task_id="by-producer", producer=Producer(connection), queue="other")

    there = Celery("there", broker=redis_url, backend="disabled", set_as_current=False)
    assert (there.transport.size("celery"), there.transport.size("other")) == (1, 1)
    assert app.transport.size("celery") == 0
    there.close()


@pytest.mark.redis
def test_what_is_lent_is_connected_to_the_apps_broker(redis_url: str) -> None:
    app = Celery("kombu", broker=redis_url, backend="disabled", set_as_current=False)
    queue = Queue("mine", Exchange("mine"), routing_key="mine")
    heard: list[Any] = []

    def hear(body: Any, message: Any) -> None:
        heard.append(body)
        message.ack()

    with app.producer_or_acquire() as producer:
        producer.publish({"a": 1}, exchange="mine", routing_key="mine", declare=[queue])
        with producer.connection.Consumer([queue], accept=["json"], callbacks=[hear]):
            producer.connection.drain_events(timeout=10)
    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1)

    assert heard == [{"a": 1}]
    app.pool.force_close_all()
    app.close()


def test_queues_that_are_chosen_there_are_those_of_the_worker(app: Celery) -> None:
    app.amqp.queues.add(Queue("mine", Exchange("e", type="topic"), routing_key="m.#"))

    app.amqp.queues.select(["mine"])

    [queue] = app.router.consume_from()
    assert (queue.name, queue.exchange.type, queue.routing_key) == ("mine", "topic", "m.#")
