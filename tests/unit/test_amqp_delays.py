"""Which messages RabbitMQ keeps for later, by which way, and what becomes of their address."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.errors import ConfigError
from celeriac.message import Delivery, Envelope, Outgoing, Props
from celeriac.queues import Exchange, Queue
from celeriac.transports.amqp.connection import Refused
from celeriac.transports.amqp.delays import Delays, declare, levels, readdress, routing_key
from celeriac.transports.amqp.topology import Method
from celeriac.transports.amqp.transport import AmqpTransport

NOW = 1_000_000.0
FIVE = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.1"


def queue_of(kind: str = "topic", *, key: str = "orders", type_: str = "quorum") -> Queue:
    exchange = Exchange(name="shop", type=kind)
    return Queue(name="q", exchange=exchange, routing_key=key, arguments={"x-queue-type": type_})


def outgoing(queue: Queue | None, seconds: float | None = 5.5, *, key: str = "orders") -> Outgoing:
    envelope = Envelope(headers={}, body=b"[]", properties=Props())
    due = None if seconds is None else NOW + seconds
    return Outgoing(envelope=envelope, exchange="shop", routing_key=key, queue=queue, not_before=due)


def way(message: Outgoing) -> tuple[str, str] | None:
    delays = Delays("quorum")
    if lacking := delays.lacking([message]):
        delays.make(lacking, list)
    return delays.way(message, NOW)


def test_the_whole_seconds_that_are_left_are_in_the_routing_key() -> None:
    assert way(outgoing(queue_of())) == ("celery_delayed_27", f"{FIVE}.orders")
    assert routing_key(2**28 - 1, "mail") == "1." * 28 + "mail"


def test_what_is_due_after_more_than_the_levels_hold_waits_for_as_long_as_they_do() -> None:
    assert way(outgoing(queue_of(), 1e12)) == ("celery_delayed_27", "1." * 28 + "orders")


@pytest.mark.parametrize(
    "message",
    [
        outgoing(queue_of(), None),
        outgoing(queue_of(), 0.9),
        outgoing(queue_of(), -5.0),
        outgoing(queue_of("direct")),
        outgoing(queue_of(type_="classic")),
        outgoing(None),
        outgoing(queue_of(), key="others"),  # it gets to another queue, of which we know nothing
        outgoing(queue_of(key="#"), key="k" * 200),
        outgoing(queue_of(key="bulk.orders"), key="bulk.orders"),  # a queue of `orders` would get it as well
    ],
    ids=["no time", "a moment", "past", "direct", "classic", "no queue", "other key", "long key", "words"],
)
def test_all_others_go_to_their_queue_at_once(message: Outgoing) -> None:
    assert way(message) is None


def test_patterns_of_topics_are_minded() -> None:
    assert way(outgoing(queue_of(key="orders.#"))) is not None
    assert way(outgoing(queue_of(key="orders.*"))) is None


def test_the_way_of_a_queue_is_declared_once() -> None:
    delays, message = Delays("quorum"), outgoing(queue_of())

    delays.make(delays.lacking([message, message]), list)

    assert not delays.lacking([message])
    delays.forget()
    assert delays.lacking([message])


@pytest.mark.parametrize("there", [True, False])
def test_a_client_makes_the_levels_only_where_there_are_none(*, there: bool) -> None:
    asked: list[list[Method]] = []

    def ask(methods: Any) -> None:
        asked.append(list(methods))
        if len(asked) == 1 and not there:
            raise Refused(404, "NOT_FOUND - no exchange 'celery_delayed_27'")

    delays, message = Delays("quorum"), outgoing(queue_of())
    delays.make(delays.lacking([message]), ask)

    made = [method[2] for method in asked[-1] if method[0] == "queue.declare"]
    assert len(made) == (0 if there else 28)
    assert ("exchange.bind", 0, "shop", "celery_delayed_delivery", "#.orders", False, {}) in asked[-1]
    assert delays.way(message, NOW) is not None


def test_levels_that_others_have_made_in_their_way_are_used_by_a_worker() -> None:
    asked: list[list[Method]] = []

    def ask(methods: Any) -> None:
        asked.append(list(methods))
        if len(asked) == 1:
            raise Refused(406, "PRECONDITION_FAILED - inequivalent arg 'x-queue-type'")

    declare("quorum", [queue_of()], ask)

    assert not any(method[0] == "queue.declare" for method in asked[1])
    assert ("queue.bind", 0, "q", "shop", "#.orders", False, {}) in asked[1]


def test_where_rabbitmq_refuses_them_messages_go_to_their_queue_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def ask(methods: Any) -> None:
        raise Refused(403, "ACCESS_REFUSED")

    delays, message = Delays("quorum"), outgoing(queue_of())
    delays.make(delays.lacking([message]), ask)

    assert delays.way(message, NOW) is None
    assert not delays.lacking([message])
    assert "permission" in caplog.text


def test_the_way_in_is_declared_last() -> None:
    binds = [method[2] for method in levels("quorum") if method[0] == "queue.bind"]

    assert binds == [f"celery_delayed_{number}" for number in range(28)]


@pytest.mark.parametrize("digits", [f"{FIVE}.", f"{FIVE}.{FIVE}."], ids=["sent", "retried by Celery 5.6"])
@pytest.mark.parametrize("name", ["celery_delayed_2", "mine_celery_delayed_2"])
def test_what_has_waited_gets_its_address_back(name: str, digits: str) -> None:
    envelope = Envelope(headers={}, body=b"[]", properties=Props())
    delivery = Delivery(envelope=envelope, queue="q", exchange=name, routing_key=f"{digits}0.1.orders")

    readdress(delivery, queue_of(key="0.1.orders"))

    assert (delivery.exchange, delivery.routing_key) == ("shop", "0.1.orders")


def test_an_address_with_digits_of_its_own_stays() -> None:
    envelope = Envelope(headers={}, body=b"[]", properties=Props())
    delivery = Delivery(envelope=envelope, queue="q", exchange="shop", routing_key=f"{FIVE}.orders")

    readdress(delivery, queue_of())

    assert delivery.routing_key == f"{FIVE}.orders"


def test_a_type_of_queues_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="'quorum' or 'classic', not 'stream'"):
        AmqpTransport("amqp://", {"delay_queues": "stream"})
