"""Many calls at once: in bounded batches, from iterables of any length, and what a failure midway says."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from celeriac import chord, group
from celeriac.app import Celeriac
from celeriac.client import TaskCall
from celeriac.errors import BrokerUnreachable, PartlySent
from celeriac.message import Outgoing
from desk import Desk, new_app


class Broker:
    """Takes so many batches, then is away; keeps how large they were, and the ids."""

    def __init__(self, batches: int | None = None) -> None:
        self.left = batches
        self.sizes: list[int] = []
        self.ids: list[str] = []

    def send(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        if self.left == 0:
            raise BrokerUnreachable("The broker is away.", retryable=False)
        if self.left is not None:
            self.left -= 1
        self.sizes.append(len(batch))
        self.ids += [outgoing.envelope.headers["id"] for outgoing in batch]

    async def asend(self, batch: Sequence[Outgoing], *, deadline: float) -> None:
        self.send(batch, deadline=deadline)

    def close(self) -> None: ...


@pytest.fixture
def app() -> Celeriac:
    return new_app(results=True)


@pytest.fixture
def add(app: Celeriac) -> Any:
    @app.task(name="proj.add")
    def add(x: Any, y: int = 0) -> Any:
        return x + y

    return add


def away_after(app: Celeriac, batches: int | None) -> Broker:
    broker = app.client._producer = Broker(batches)
    return broker


@pytest.mark.parametrize(
    "send",
    [
        lambda app, add: group(add.s(n) for n in range(1200)).apply_async(),
        lambda app, add: add.map_async(range(1200)),
        lambda app, add: add.starmap_async((n, 1) for n in range(1200)),
        lambda app, add: app.send_many(TaskCall(name="proj.add", args=(n,)) for n in range(1200)),
        lambda app, add: add.chunks(((n, 1) for n in range(2400)), 2).apply_async(),
    ],
    ids=["group", "map_async", "starmap_async", "send_many", "chunks"],
)
def test_a_broker_that_goes_away_midway_is_named_with_what_was_sent(
    app: Celeriac, add: Any, send: Callable[[Celeriac, Any], Any]
) -> None:
    broker = away_after(app, batches=2)

    with pytest.raises(PartlySent, match=r"Only the first 1,000 were sent.*is away") as caught:
        send(app, add)

    assert caught.value.sent == 1000
    assert [result.id for result in caught.value.results] == broker.ids
    assert isinstance(caught.value.__cause__, BrokerUnreachable)
    assert not caught.value.retryable


def test_a_broker_that_is_away_from_the_start_is_named_as_for_a_single_call(app: Celeriac, add: Any) -> None:
    away_after(app, batches=0)

    with pytest.raises(BrokerUnreachable):
        add.map_async(range(1200))


def test_a_long_batch_block_says_how_many_were_sent(app: Celeriac, add: Any) -> None:
    away_after(app, batches=1)

    def send_all() -> None:
        with app.batch():
            for number in range(600):
                add.delay(number)

    with pytest.raises(PartlySent) as caught:
        send_all()

    assert (caught.value.sent, caught.value.results) == (500, [])


def test_an_error_of_the_items_keeps_its_class_and_says_how_many_were_sent(app: Celeriac, add: Any) -> None:
    broker = away_after(app, batches=None)

    def items() -> Iterator[int]:
        yield from range(700)
        raise LookupError("no such row")

    with pytest.raises(LookupError) as caught:
        add.map_async(items())

    assert caught.value.__notes__ == ["The first 500 calls had been sent by then."]
    assert broker.sizes == [500]


def test_batches_are_bounded_in_bytes_too(app: Celeriac, add: Any) -> None:
    broker = away_after(app, batches=None)

    add.map_async("x" * 1_000_000 for _ in range(10))

    assert broker.sizes == [5, 5]


def test_items_are_taken_while_calls_go_out_and_are_not_kept(app: Celeriac, add: Any) -> None:
    broker = away_after(app, batches=None)
    sent_before: list[int] = []

    def items() -> Iterator[int]:
        for number in range(2000):
            sent_before.append(len(broker.ids))
            yield number

    add.map_async(items())

    assert max(number - sent for number, sent in enumerate(sent_before)) <= 500


def test_of_a_long_stream_only_the_results_to_come_stay_in_memory(app: Celeriac, add: Any) -> None:
    away_after(app, batches=None)
    app.client._producer.send = lambda batch, deadline: None  # type: ignore[method-assign,union-attr]
    add.map_async(range(10))

    tracemalloc.start()
    try:
        sent = add.map_async(range(20_000))
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(sent) == 20_000
    assert kept < 20_000 * 600  # an AsyncResult and its id
    assert peak - kept < 5_000_000  # a batch


def test_mapped_calls_are_members_of_one_group_in_order(app: Celeriac, add: Any) -> None:
    sent = add.starmap_async(((n, 10) for n in range(5)), task_id="mine", priority=3)
    desk = Desk(app)
    desk.run_all()

    assert sent.id == "mine"
    assert sent.get() == [10, 11, 12, 13, 14]
    assert [(r.group, r.group_index) for r in desk.requests] == [("mine", n) for n in range(5)]


def test_mapped_calls_run_right_here_where_all_tasks_do(add: Any, app: Celeriac) -> None:
    app.conf.task_always_eager = True

    assert add.map_async(iter([1, 2])).get() == [1, 2]


def test_sending_a_group_or_a_chord_leaves_its_members_as_they_were(app: Celeriac, add: Any) -> None:
    members = [add.s(1, 1), add.s(2, 2).set(priority=1)]
    before = [dict(member, options=dict(member.options)) for member in members]
    whole = group(members)

    first, second = whole.apply_async((), {}), whole.apply_async()
    body = chord(members, add.s([])).apply_async()

    assert [dict(member) for member in members] == before
    assert not {r.id for r in first} & {r.id for r in second}
    assert body.parent is not None
    assert len({r.id for r in first} | {r.id for r in second} | {r.id for r in body.parent}) == 6
