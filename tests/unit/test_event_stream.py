"""The stream of a node's events: in order, together, and never more than there is room for."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from celeriac.errors import BrokerUnreachable
from celeriac.events import stream as streams
from celeriac.events.stream import EventStream
from celeriac.message import Broadcast
from celeriac.wire.event import utc_offset
from celeriac.wire.task_event import TaskFailed, TaskReceived
from desk import new_app


class Wire:
    """A fanout that notes what is published, and is away when told so."""

    def __init__(self) -> None:
        self.batches: list[list[Broadcast]] = []
        self.away = False
        self.on_publish: Callable[[], None] = lambda: None

    async def apublish(self, batch: Sequence[Broadcast], *, deadline: float) -> int:
        if self.away:
            raise BrokerUnreachable("it is away")
        self.batches.append(list(batch))
        self.on_publish()
        return 1


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def stream(wire: Wire) -> EventStream:
    fanout: Any = wire
    return EventStream(new_app(), fanout, "w1@h")


def told(wire: Wire) -> list[tuple[str, Any]]:
    """Return keys and bodies of everything that was published."""
    return [
        (message.routing_key, json.loads(message.envelope.body))
        for batch in wire.batches
        for message in batch
    ]


def numbers(wire: Wire) -> list[int]:
    return [event["n"] for _, body in told(wire) for event in (body if isinstance(body, list) else [body])]


async def test_events_of_tasks_go_together_and_others_alone_in_their_order(
    stream: EventStream, wire: Wire
) -> None:
    for n, kind in enumerate(
        ["worker-online", "task-received", "task-started", "worker-heartbeat", "task-failed"]
    ):
        stream.emit(kind, {"n": n})
    await stream.flush()

    assert len(wire.batches) == 1, "one publish for all"
    assert [key for key, _ in told(wire)] == ["worker.online", "task.multi", "worker.heartbeat", "task.multi"]
    assert numbers(wire) == [0, 1, 2, 3, 4]
    assert wire.batches[0][0].envelope.headers == {"hostname": "w1@h"}


async def test_long_lists_are_cut(stream: EventStream, wire: Wire) -> None:
    for n in range(250):
        stream.emit("task-started", {"n": n})
    await stream.flush()

    assert [len(body) for _, body in told(wire)] == [100, 100, 50]


async def test_what_the_broker_does_not_take_is_sent_when_it_is_back(stream: EventStream, wire: Wire) -> None:
    wire.away = True
    stream.emit("task-started", {"n": 0})
    with pytest.raises(BrokerUnreachable):
        await stream.flush()
    stream.emit("task-succeeded", {"n": 1})
    wire.away = False
    await stream.flush()

    assert numbers(wire) == [0, 1]
    assert (stream.sent, stream.dropped) == (2, 0)


async def test_too_much_is_dropped_oldest_first_counted_and_told(
    stream: EventStream, wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wire.away = True
    for n in range(streams.MOST_WAITING):
        stream.emit("task-started", {"n": n})
    with pytest.raises(BrokerUnreachable):
        await stream.flush()
    for n in range(5):
        stream.emit("task-started", {"n": streams.MOST_WAITING + n})
    wire.away = False
    with caplog.at_level(logging.WARNING):
        await stream.flush()
        await stream.flush()

    assert numbers(wire) == list(range(5, streams.MOST_WAITING + 5))
    assert stream.dropped == 5
    assert [record.args for record in caplog.records] == [(5,)]


async def test_half_a_character_does_not_stop_the_others(stream: EventStream, wire: Wire) -> None:
    stream.emit("task-received", {"n": 0, "name": "half \ud83d"})
    stream.emit("task-started", {"n": 1})
    await stream.flush()

    assert numbers(wire) == [0, 1]


RECEIVED: dict[str, Any] = {
    "uuid": "1-2",
    "name": "add",
    "args": "(1, 2)",
    "kwargs": "{}",
    "root_id": "1-1",
    "parent_id": None,
    "retries": 0,
    "eta": None,
    "expires": None,
}
FAILED: dict[str, Any] = {"uuid": "1-2", "exception": "KeyError(1)"}


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("name", ["add", "half \ud83d"])
async def test_events_of_tasks_have_their_fields_in_celerys_order(
    serializer: str, name: str, wire: Wire
) -> None:
    fanout: Any = wire
    app = new_app(event_serializer=serializer)
    stream = EventStream(app, fanout, "w1@h")
    received, failed = {**RECEIVED, "name": name}, FAILED
    stream.tell(TaskReceived(**received), 1.5)
    stream.tell(TaskFailed(**failed), 2.5)
    stream.tell(TaskFailed(**failed, traceback=""), 3.5)
    await stream.flush()

    [[message]] = wire.batches
    envelope, accept = message.envelope, app.codecs.accept_set({serializer})
    events = app.codecs.decode(envelope.body, envelope.content_type, envelope.content_encoding, accept)
    begin = {"hostname": "w1@h", "utcoffset": utc_offset(), "pid": os.getpid()}
    assert [list(event.items()) for event in events] == [
        list({**begin, "clock": clock, **fields, "timestamp": at, "type": f"task-{kind}"}.items())
        for clock, fields, at, kind in (
            (1, received, 1.5, "received"),
            (2, failed, 2.5, "failed"),
            (3, {**failed, "traceback": ""}, 3.5, "failed"),
        )
    ]


async def test_what_is_told_while_others_are_sent_is_sent_next(stream: EventStream, wire: Wire) -> None:
    running = asyncio.create_task(stream.run())
    wire.on_publish = lambda: stream.emit("task-succeeded", {"n": 1}) if len(wire.batches) == 1 else None
    stream.emit("task-started", {"n": 0})
    async with asyncio.timeout(30):
        while len(wire.batches) < 2:
            await asyncio.sleep(0)
    running.cancel()

    assert numbers(wire) == [0, 1]


async def test_it_sends_by_itself_what_is_told(stream: EventStream, wire: Wire) -> None:
    running = asyncio.create_task(stream.run())
    stream.emit("task-started", {"n": 0})
    async with asyncio.timeout(30):
        while not wire.batches:
            await asyncio.sleep(0)
    running.cancel()

    assert numbers(wire) == [0]


async def test_the_logical_clock_orders_them(stream: EventStream, wire: Wire) -> None:
    for n in range(3):
        stream.emit("task-started", {"n": n})
    await stream.flush()

    [(_, events)] = told(wire)
    assert [event["clock"] for event in events] == sorted({event["clock"] for event in events})
