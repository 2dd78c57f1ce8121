"""What sending a task may cost: counted, not timed."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import pytest

from celeriac import chain, chord, group
from celeriac.message import Outgoing
from celeriac.replacement import in_place_of
from celeriac.wire import virtual
from desk import new_app

CALLS = 64  # to be counted: ids are made so many at a time
MOST_CALLS = 60  # Python functions per delay(), the producer's included
MOST_CALLS_OF_OURS = 34  # without the producer, so that there is room for that of Redis
MOST_CALLS_OF_A_MEMBER = 34  # per member of a large group, without the producer
MOST_CALLS_OF_A_LINK = 80  # per link of a long chain, without the producer
MOST_BYTES_OF_A_PART = 2048  # of a message of a chord's header at Redis, however many there are


class Counting:
    """A producer that counts its round trips."""

    def __init__(self) -> None:
        self.round_trips = 0
        self.last: list[Outgoing] = []  # one of each batch

    def send(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        self.round_trips += 1
        self.last.append(batch[-1])

    async def asend(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        self.round_trips += 1

    def close(self) -> None: ...


def calls_of(function: Callable[[], Any]) -> list[str]:
    """Return the Python functions that a call runs."""
    names: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            names.append(f"{frame.f_code.co_filename.rpartition('celeriac/')[2]}:{frame.f_code.co_name}")

    before = sys.getprofile()
    gc.collect()
    gc.disable()  # or what earlier tests have left is finalized in between, and counted
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
        gc.enable()
    return names


@pytest.mark.parametrize("results", [False, True])
def test_delay_with_the_memory_broker_stays_within_its_budget(results: bool) -> None:
    app = new_app(results=results)

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    add.delay(1, 2)
    names = calls_of(lambda: [add.delay(1, 2) for _ in range(CALLS)])

    assert len(names) <= CALLS * MOST_CALLS, names


def test_everything_above_the_producer_stays_within_its_budget() -> None:
    app = new_app()
    app.client._producer = Counting()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    add.delay(1, 2)
    names = calls_of(lambda: [add.delay(1, 2) for _ in range(CALLS)])

    assert len(names) <= CALLS * MOST_CALLS_OF_OURS, names


def test_a_call_and_a_group_are_one_round_trip_each() -> None:
    app = new_app()
    app.client._producer = producer = Counting()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    add.delay(1, 2)
    assert producer.round_trips == 1

    group(add.s(n, n) for n in range(100)).apply_async()
    assert producer.round_trips == 2


def test_a_large_group_costs_no_more_per_member_than_single_calls_and_few_round_trips() -> None:
    app = new_app()
    app.client._producer = producer = Counting()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    members = group(add.s(n, n) for n in range(1000))
    members.apply_async()
    producer.round_trips = 0
    names = calls_of(members.apply_async)

    assert producer.round_trips == 2
    assert len(names) <= 1000 * MOST_CALLS_OF_A_MEMBER


def test_the_messages_of_a_wide_chord_stay_small() -> None:
    app = new_app(results=True)
    app.client._producer = producer = Counting()

    @app.task
    def add(x: int, y: int = 0) -> int:
        return x + y

    chord((add.s(n) for n in range(3000)), add.s().on_error(add.s(1))).apply_async()

    sizes = [len(virtual.encode(o.envelope, o.exchange, o.routing_key)) for o in producer.last]
    assert len(sizes) == 6
    assert max(sizes) <= MOST_BYTES_OF_A_PART


def test_a_long_chain_is_made_and_sent_in_time_proportional_to_its_length() -> None:
    app = new_app()
    app.client._producer = Counting()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    links = [add.s(1) for _ in range(500)]
    names = calls_of(lambda: chain(*links).apply_async((1,)))

    assert len(names) <= 500 * MOST_CALLS_OF_A_LINK


def test_sending_subscribes_to_nothing() -> None:
    app = new_app(results=True)

    class Watched:
        persistent = True

        def reply_address(self) -> None:
            return None

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"sending has asked the result store for {name}")

    app.backend = Watched()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    add.delay(1, 2)


def test_a_task_in_a_long_chain_is_replaced_in_time_proportional_to_what_is_left() -> None:
    app = new_app()
    app.client._producer = Counting()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    whole = chain(*(add.s(1) for _ in range(500)))
    whole.freeze()
    add.push_request(called_directly=False, id="1", chain=[dict(link) for link in reversed(whole.tasks)])
    names: list[str] = []
    try:
        for instead in (add.s(1, 2), add.s(1, 2) | add.s(3), chord([add.s(1, 2)], add.s(3))):
            names += calls_of(lambda instead=instead: in_place_of(add, instead))  # type: ignore[misc]
    finally:
        add.pop_request()

    assert len(names) <= 3 * 500 * MOST_CALLS_OF_A_LINK
