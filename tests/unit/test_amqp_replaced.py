"""Which messages RabbitMQ hands out once more though a copy of them is safe."""

from __future__ import annotations

import pytest

from celeriac.message import Delivery, Envelope, Outgoing, Props
from celeriac.queues import direct_queue
from celeriac.transports.amqp import topology
from celeriac.transports.amqp.connection import Message
from celeriac.transports.amqp.replaced import Replaced, identity_of, stands_beside
from celeriac.transports.amqp.tables import encode_properties

QUEUE = direct_queue("celery")


def message(envelope: Envelope, *, redelivered: bool) -> Message:
    properties = encode_properties(envelope)
    return Message(1, "1", 7, redelivered, "", "celery", None, properties=properties, body=envelope.body)


def envelope() -> Envelope:
    return Envelope(headers={"id": "a", "retries": 0}, body=b"[]", properties=Props())


def copy_of(original: Message, *, before: int) -> Outgoing:
    delivery: Delivery = topology.read_delivery(original, "celery", 1)
    return topology.once_more(delivery, QUEUE, before=before)


def test_an_original_may_come_again_more_than_once_and_is_told_from_its_copy() -> None:
    original = message(envelope(), redelivered=True)
    copy = copy_of(original, before=1)
    replaced = Replaced()

    replaced.note([identity_of(original, "celery")])

    assert stands_beside(copy, identity_of(original, "celery"))
    assert [replaced.is_back(original, "celery") for _ in range(2)] == [True, True]
    assert not replaced.is_back(message(copy.envelope, redelivered=True), "celery")
    assert not replaced.is_back(message(envelope(), redelivered=False), "celery")  # sent anew
    assert not replaced.is_back(original, "other")


def test_an_original_that_rabbitmq_has_let_go_of_is_forgotten() -> None:
    original = message(envelope(), redelivered=True)
    replaced = Replaced()
    replaced.note([identity_of(original, "celery")])

    replaced.forget([identity_of(original, "celery")])

    assert not replaced.is_back(original, "celery")


def test_what_is_no_original_any_more_after_some_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("celeriac.transports.amqp.replaced.time.monotonic", lambda: now)
    original = message(envelope(), redelivered=True)
    replaced = Replaced()
    replaced.note([identity_of(original, "celery")])

    now += 301.0

    assert not replaced.is_back(original, "celery")


def test_a_copy_that_looks_like_its_original_stands_for_nothing() -> None:
    first = message(envelope(), redelivered=False)
    again = message(copy_of(first, before=1).envelope, redelivered=True)

    assert not stands_beside(copy_of(again, before=1), identity_of(again, "celery"))
