"""Waiting messages are looked at and moved on every broker, and nothing is lost or counted as delivered."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.message import Delivery
from celeriac.moving import Move, carry_out, peek
from celeriac.ports import Transport
from celeriac.queues import Queue, direct_queue


@pytest.fixture(params=["sqlite", "redis", "rabbitmq"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Celeriac:
    """Return an app on each broker."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/broker.db"
    else:
        url = request.getfixturevalue(f"{request.param}_url")
    return Celeriac("moving", broker=url, set_as_current=False)


def _queue() -> Queue:
    return direct_queue(f"moving-{uuid.uuid4().hex[:8]}")


def _ids(found: list[Delivery]) -> list[str]:
    return [delivery.envelope.headers["id"] for delivery in found]


def _peek(transport: Transport, queue: Queue, limit: int = 1000) -> list[Delivery]:
    return asyncio.run(peek(transport, queue, limit))


def test_looking_leaves_order_and_attempts_as_they_were(app: Celeriac) -> None:
    queue = _queue()
    ids = [app.send_task("t.add", args=(number,), queue=queue.name).id for number in range(5)]

    seen = _peek(app.transport, queue, 3)

    assert _ids(seen) == ids[:3]
    again = _peek(app.transport, queue)
    assert _ids(again) == ids
    # RabbitMQ marks whatever was handed out as redelivered; that such a mark is no count is known to workers.
    assert all(delivery.attempt == 1 or delivery.uncounted for delivery in again)
    app.close()


@pytest.mark.parametrize("keep", [False, True])
def test_more_messages_than_one_round_takes_arrive_in_order(app: Celeriac, keep: bool) -> None:
    source, target = _queue(), _queue()
    ids = [app.send_task("t.add", queue=source.name).id for _ in range(230)]
    told: list[Delivery] = []
    move = Move(source=app.transport, queue=source, target=app.transport, to=target, keep=keep)

    assert asyncio.run(carry_out(move, told.append)) == len(ids)

    assert _ids(told) == ids
    assert _ids(_peek(app.transport, target)) == ids
    assert _ids(_peek(app.transport, source)) == (ids if keep else [])
    app.close()


def test_a_queue_that_is_not_there_has_nothing_to_move(app: Celeriac) -> None:
    move = Move(source=app.transport, queue=_queue(), target=app.transport, to=_queue())

    assert asyncio.run(carry_out(move)) == 0
    app.close()
