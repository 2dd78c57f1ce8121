"""What a task costs a worker, in things that can be counted and do not depend on the machine."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import pytest

from celeriac.canvas import chain
from celeriac.clock import SystemClock
from celeriac.codecs.jsontext import JsonCodec
from celeriac.events.stream import EventStream
from celeriac.execute.executor import Executor
from celeriac.message import Ack, Delivery, Finished, Record, Verdict
from celeriac.node.dispatch import Dispatcher
from celeriac.node.herald import Herald
from celeriac.node.keeper import Keeper
from celeriac.node.link import Link, RetryPolicy
from celeriac.node.policy import Policies
from celeriac.node.readahead import ReadAhead
from celeriac.node.report import Reporter
from celeriac.node.results import Results
from celeriac.node.scribe import Scribe
from celeriac.node.work import Ledger
from celeriac.pools.prefork.board import Board
from celeriac.pools.prefork.child import Child
from celeriac.pools.prefork.inbox import Inbox
from celeriac.ports import ConsumeSpec
from celeriac.wire.task import unpack_headers
from job_factory import deliveries, job_of, memory_app

FRAMES_UNDER_A_TASK = 4  # of ours, between the child's loop and the user's function; Celery has 35
BYTES_OF_A_STEP = 600  # of JSON read and written, of which the next step takes 190
CALLS_IN_THE_CHILD = 60  # of Python functions, the task's own among them; Celery makes 910


def test_few_frames_lie_between_the_childs_loop_and_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    app = memory_app()
    frames: list[str] = []

    @app.task
    def look() -> None:
        frame: FrameType | None = inspect.currentframe()
        while frame is not None and (frame := frame.f_back) is not None and frame.f_code.co_name != "_work":
            frames.append(frame.f_code.co_qualname)

    look.delay()
    (delivery,) = deliveries(app)
    board, inbox = Board(1), Inbox()
    inbox.put(job_of(delivery))
    inbox.put_stop()
    monkeypatch.setattr("signal.signal", lambda *_: None)  # this process keeps its handlers
    Child(board, 0, inbox.far, Executor(app, "w1@host")).run()
    inbox.close()

    assert 0 < len(frames) <= FRAMES_UNDER_A_TASK, frames


def test_few_calls_are_made_to_run_a_task() -> None:
    app = memory_app()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    add.delay(1, 2)
    (delivery,) = deliveries(app)
    job, executor = job_of(delivery), Executor(app, "w1@host")
    executor.run(job, None)  # what is done once is done now
    calls: list[str] = []

    def count(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            calls.append(frame.f_code.co_qualname)

    sys.setprofile(count)
    executor.run(job, None)
    sys.setprofile(None)

    assert len(calls) <= CALLS_IN_THE_CHILD, calls


@pytest.mark.parametrize("length", [100, 1_000])
def test_what_is_read_and_written_for_a_step_does_not_grow_with_its_chain(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, encode = JsonCodec.decode, JsonCodec.encode
    done: list[int] = []

    def decode_counted(self: JsonCodec, data: bytes) -> Any:
        done.append(len(data))
        return decode(self, data)

    def encode_counted(self: JsonCodec, value: Any) -> bytes:
        done.append(len(data := encode(self, value)))
        return data

    monkeypatch.setattr(JsonCodec, "decode", decode_counted)
    monkeypatch.setattr(JsonCodec, "encode", encode_counted)
    app = memory_app()

    @app.task
    def increased(x: int) -> int:
        return x + 1

    chain(increased.s(1), *(increased.s() for _ in range(length))).apply_async()
    (delivery,) = deliveries(app)
    job = job_of(delivery)
    done.clear()
    Executor(app, "w1@host").run(job, None)

    assert len(job.body) > 100 * length
    assert sum(done) <= BYTES_OF_A_STEP, done


class Counting:
    """A consumer, a result store and a pool that count round trips."""

    size = 2
    kind = "counting"

    def __init__(self) -> None:
        self.trips: list[str] = []

    async def astore(self, batch: Sequence[Record]) -> None:
        self.trips.append(f"store {len(batch)}")

    async def settle(self, verdicts: Sequence[tuple[Delivery, Verdict]]) -> None:
        assert all(verdict == Ack() for _, verdict in verdicts)
        self.trips.append(f"settle {len(verdicts)}")

    async def renew(self) -> None: ...

    def holds(self, delivery: Delivery) -> bool:
        return True

    def free(self, *, short: bool = False) -> int:
        return 0


async def test_a_batch_of_reports_takes_two_round_trips() -> None:
    app = memory_app()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    for _ in range(200):
        add.delay(1, 2)
    taken = await asyncio.to_thread(deliveries, app)
    counting: Any = Counting()
    ledger = Ledger(lambda work: None)
    link = Link(app.transport, ConsumeSpec(queues=(), node="w1@host"), RetryPolicy())
    link._consumer = counting
    await link.renew()
    dispatcher = Dispatcher(
        counting, "w1@host", ReadAhead(8, fair=False), lambda work: True, lambda: link.sure
    )
    herald = Herald(EventStream(app, app.transport.fanout(), "w1@host"))
    keeper = Keeper(app.transport.locks, SystemClock(), lambda: 1, lambda work: None)
    reporter = Reporter(
        Scribe(link, counting, keeper), ledger, dispatcher, Results(app), herald, keeper, lambda: None
    )
    policy = Policies(app, None, None).get(add.name)
    assert policy is not None
    works = [ledger.open(delivery, unpack_headers(delivery.envelope), policy) for delivery in taken]
    running = asyncio.create_task(reporter.run())

    reporter.take(
        [
            Finished(
                number=work.number,
                kind="success",
                record=Record(id=work.headers.id, state="SUCCESS", payload=b"{}"),
            )
            for work in works
        ]
    )
    await reporter.drain()
    running.cancel()

    assert counting.trips == ["store 200", "settle 200"]
