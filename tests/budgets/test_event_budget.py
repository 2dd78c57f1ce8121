"""What events cost, with `-E` and three of them for every task, in things that can be counted."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from celeriac.app import Celeriac
from celeriac.events.stream import LIST_MOST, EventStream
from celeriac.message import Broadcast, Finished
from celeriac.node.herald import Herald
from celeriac.node.policy import Policies
from celeriac.node.work import Ledger, Work
from celeriac.wire.task import unpack_headers
from job_factory import deliveries, memory_app

TASKS = 200
CALLS_PER_TASK = 19  # of Python functions in the node, from its reception to the socket, and `follow` itself
BYTES_PER_TASK = 700  # of JSON


class Wire:
    """A fanout that keeps what is published."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Broadcast]] = []

    async def apublish(self, batch: Sequence[Broadcast], *, deadline: float) -> int:
        self.batches.append(batch)
        return 0


def watched(app: Celeriac, fanout: Any) -> tuple[Herald, list[Work]]:
    """Return a herald that tells events, and tasks that a node has taken in."""

    @app.task(name="proj.add")
    def add(x: int, y: int) -> int:
        return x + y

    for n in range(TASKS):
        add.delay(n, 2)
    policy, ledger = Policies(app, None, None).get(add.name), Ledger(lambda work: None)
    assert policy is not None
    works = [ledger.open(found, unpack_headers(found.envelope), policy) for found in deliveries(app)]
    return Herald(EventStream(app, fanout, "w1@host.example"), on=True), works


def follow(herald: Herald, work: Work) -> None:
    """Tell what a node tells of a task that succeeds at once."""
    report = Finished(
        number=work.number, kind="success", record=None, runtime=0.0012, started_at=1.5, result_repr="3"
    )
    herald.received(work)
    herald.started(work, report.started_at)
    ending = herald.ending(work, report)
    assert ending is not None
    herald.stream.tell(ending)


async def test_three_events_take_few_calls_and_bytes_and_go_together() -> None:
    wire = Wire()
    herald, works = await asyncio.to_thread(watched, memory_app(), wire)
    calls = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    for work in works:
        follow(herald, work)
    await herald.stream.flush()
    sys.setprofile(None)

    [batch] = wire.batches
    told = [event for message in batch for event in json.loads(message.envelope.body)]
    assert [event["type"] for event in told[:3]] == ["task-received", "task-started", "task-succeeded"]
    assert len(told) == 3 * TASKS
    assert len(batch) == 3 * TASKS / LIST_MOST
    assert calls <= TASKS * CALLS_PER_TASK
    assert sum(len(message.envelope.body) for message in batch) <= TASKS * BYTES_PER_TASK
