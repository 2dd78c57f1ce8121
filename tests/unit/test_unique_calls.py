"""Which calls of unique tasks are sent, and which have the result of another one."""

from __future__ import annotations

import asyncio
import datetime
import threading
from typing import Any

import pytest

from celeriac import context
from celeriac.app import Celeriac
from celeriac.bursts import GRACE_SECONDS, MARGIN_SECONDS, OVER, Burst, Turn
from celeriac.canvas import chord, group
from celeriac.client import TaskCall
from celeriac.context import Context
from celeriac.errors import BrokerUnreachable, ConfigError, EncodeError, UsageError
from celeriac.locks import COLLECTED_SECONDS, UNSENT_SECONDS, Lock
from celeriac.message import Delivery
from celeriac.task import Task
from job_factory import deliveries, memory_app

Call = tuple[tuple[Any, ...], dict[str, Any]]


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


@pytest.fixture
def sync(app: Celeriac) -> Task[..., Any]:
    @app.task(name="shop.sync", unique="until_done")
    def sync(shop: int, *, full: bool = False, options: Any = None) -> None: ...

    return sync


def sent(app: Celeriac) -> list[str]:
    """Return the ids of the calls that were sent since the last look."""
    return [delivery.envelope.headers["id"] for delivery in deliveries(app)]


def locks_of(taken: list[Delivery]) -> list[str | None]:
    return [delivery.envelope.headers.get("celeriac_lock") for delivery in taken]


def test_the_second_call_is_not_sent_and_has_the_result_of_the_first(
    app: Celeriac, sync: Task[..., Any]
) -> None:
    first, second, other = sync.delay(1), sync.delay(1), sync.delay(2)

    assert second.id == first.id
    assert other.id != first.id
    assert sent(app) == [first.id, other.id]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (((1,), {}), ((), {"shop": 1})),
        (((1,), {}), ((1,), {"full": False})),
        (((1,), {"options": {"a": 1, "b": 2}}), ((1,), {"options": {"b": 2, "a": 1}})),
        (((1,), {"options": [datetime.date(2026, 1, 1)]}), ((1,), {"options": (datetime.date(2026, 1, 1),)})),
    ],
)
def test_arguments_count_however_they_are_given(sync: Task[..., Any], one: Call, two: Call) -> None:
    assert sync.apply_async(*one).id == sync.apply_async(*two).id


@pytest.mark.parametrize("two", [((2,), {}), (("1",), {}), ((True,), {}), ((1,), {"full": True})])
def test_other_arguments_are_another_call(sync: Task[..., Any], two: Call) -> None:
    assert sync.delay(1).id != sync.apply_async(*two).id


def test_only_the_arguments_that_are_named_count(app: Celeriac) -> None:
    @app.task(name="shop.pay", unique="until_started", unique_on=["args.order.id", "args.kind"])
    def pay(order: dict[str, Any], kind: str = "card", note: Any = None) -> None: ...

    first, second = pay.delay({"id": 7}), pay.delay({"id": 7, "lines": 3}, note="again")
    others = [pay.delay({"id": 8}), pay.delay({"id": 7}, "cash")]

    assert second.id == first.id
    assert sent(app) == [first.id, *(other.id for other in others)]


def test_arguments_that_cannot_be_compared_are_an_error_that_says_what_to_do(
    app: Celeriac, sync: Task[..., Any]
) -> None:
    with pytest.raises(UsageError, match=r"unique_on=\['args\.id'\]"):
        sync.delay(1, options=object())

    assert sent(app) == []


def test_a_call_without_what_is_named_is_not_sent(app: Celeriac) -> None:
    app.task(name="shop.pay", unique="until_done", unique_on=["args.order.id"])(lambda order: None)

    with pytest.raises(UsageError, match=r"args\.order\.id \(unique_on=\)"):
        app.send_task("shop.pay", ({},))

    assert sent(app) == []


async def test_every_way_to_send_knows_the_first(app: Celeriac, sync: Task[..., Any]) -> None:
    first = sync.delay(1)

    others = [
        sync.apply_async((1,)),
        app.send_task("shop.sync", (1,)),
        await sync.adelay(1),
        await app.client.asend("shop.sync", (1,)),
        sync.s(1).delay(),
        sync.si(1).apply_async(countdown=60),
        *app.send_many([TaskCall(name="shop.sync", args=(1,)), TaskCall(name="shop.sync", args=(1,))]),
        *group(sync.s(1), sync.s(1)).delay().results,
        sync.apply_async((1,), task_id="mine"),
    ]

    assert {result.id for result in others} == {first.id}
    assert await asyncio.to_thread(sent, app) == [first.id]


async def test_asking_for_the_lock_does_not_block_the_loop(
    app: Celeriac, sync: Task[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_on: list[threading.Thread] = []
    take = app.transport.locks().take

    def note(wanted: list[Lock], *, deadline: float) -> list[str | None]:
        asked_on.append(threading.current_thread())
        return take(wanted, deadline=deadline)

    monkeypatch.setattr(app.transport.locks(), "take", note)

    first, second = await sync.adelay(1), await app.client.asend("shop.sync", (1,))

    assert first.id == second.id
    assert threading.current_thread() not in asked_on


def test_the_members_of_a_group_that_are_the_same_are_sent_once(app: Celeriac, sync: Task[..., Any]) -> None:
    one, two, three = group(sync.s(1), sync.s(2), sync.s(1)).delay().results

    assert one.id == three.id != two.id
    assert sorted(sent(app)) == sorted([one.id, two.id])


def test_what_something_waits_for_under_its_own_id_is_always_sent(
    app: Celeriac, sync: Task[..., Any]
) -> None:
    @app.task(name="shop.told")
    def told(*args: Any) -> None: ...

    first = sync.delay(1)
    sent(app)

    chord([sync.s(1), sync.s(1)], told.si()).delay()
    (sync.si(1) | told.si()).delay()
    sync.apply_async((1,), link=told.si())
    frozen = sync.si(1)
    frozen.freeze()
    frozen.delay()

    taken = deliveries(app)
    assert len(taken) == 5
    assert first.id not in [delivery.envelope.headers["id"] for delivery in taken]
    assert locks_of(taken) == [None] * 5  # which do not free the lock of the first either


def test_a_step_that_a_task_sends_is_always_sent_as_its_id_is_known(
    app: Celeriac, sync: Task[..., Any]
) -> None:
    step = sync.si(1)
    step.freeze()
    sync.delay(1)
    sent(app)
    context.push(sync, Context(id="outer", called_directly=False))

    result = step.delay()
    context.pop()

    assert sent(app) == [result.id]


def test_what_is_awaited_takes_the_lock_when_it_is_free(app: Celeriac, sync: Task[..., Any]) -> None:
    sync.apply_async((1,), link=sync.si(2))

    assert sync.delay(1).id == sent(app)[0]


def test_a_retry_is_sent_and_keeps_its_lock(app: Celeriac, sync: Task[..., Any]) -> None:
    first = sync.delay(1)
    (delivery,) = deliveries(app)
    headers = {"celeriac_lock": delivery.envelope.headers["celeriac_lock"]}

    sync.apply_async((1,), task_id=first.id, retries=1, headers=headers)

    (again,) = deliveries(app)
    assert again.envelope.headers["id"] == first.id
    assert locks_of([again]) == ['until_done:shop.sync[{"full":false,"options":null,"shop":1}]']
    assert sync.delay(1).id == first.id


def test_the_retry_of_what_was_unique_until_it_started_frees_nothing(app: Celeriac) -> None:
    sync = app.task(name="shop.sync", unique="until_started")(lambda: None)

    sync.apply_async(retries=1, headers={"celeriac_lock": "until_started:shop.sync[{}]", "mine": 1})

    (again,) = deliveries(app)
    assert locks_of([again]) == [None]
    assert again.envelope.headers["mine"] == 1


def test_a_lock_that_was_handed_on_in_headers_is_not_taken_for_ones_own(
    app: Celeriac, sync: Task[..., Any]
) -> None:
    sync.delay(1)
    (first,) = deliveries(app)

    sync.apply_async((2,), headers={**first.envelope.headers, "mine": 1})

    assert 'shop":2}' in str(locks_of(deliveries(app))[0])


@pytest.mark.parametrize("option", ["unique", "throttle"])
def test_for_so_many_seconds_a_call_keeps_others_out(app: Celeriac, option: str) -> None:
    options: dict[str, Any] = {option: 0.05}
    sync = app.task(bind=False, name="shop.sync", **options)(lambda: None)

    first, second = sync.delay(), sync.delay()
    assert locks_of(deliveries(app)) == [None]  # nobody frees it before
    while (third := sync.delay()).id == first.id:
        pass

    assert second.id == first.id
    assert third.id == sent(app)[-1]


class Failing:
    """A producer that has failed."""

    def send(self, batch: Any, *, deadline: float) -> None:
        raise BrokerUnreachable("away", retryable=False)

    async def asend(self, batch: Any, *, deadline: float) -> None:
        self.send(batch, deadline=deadline)


async def test_a_call_that_could_not_be_sent_keeps_nobody_out(app: Celeriac, sync: Task[..., Any]) -> None:
    failing: Any = Failing()
    with pytest.raises(BrokerUnreachable):
        sync.apply_async((1,), producer=failing)
    with pytest.raises(BrokerUnreachable):
        await sync.aapply_async((1,), producer=failing)
    with pytest.raises(BrokerUnreachable), app.batch():
        sync.apply_async((1,), producer=failing)
    with pytest.raises(ZeroDivisionError), app.batch():
        _ = sync.delay(1).id, 1 / 0
    with pytest.raises(ZeroDivisionError):
        async with app.client.abatch():
            _ = sync.delay(1).id, 1 / 0
    with pytest.raises(EncodeError):
        sync.apply_async((1,), headers={"bad": object()}, serializer="no such")

    result = sync.delay(1)

    assert await asyncio.to_thread(sent, app) == [result.id]


def test_a_lock_lasts_no_longer_than_its_call_is_wanted_and_from_its_time_on(
    app: Celeriac, sync: Task[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    locks, seconds = app.transport.locks(), list[float]()
    monkeypatch.setattr(locks, "take", lambda wanted, deadline: [None])
    monkeypatch.setattr(
        locks, "confirm", lambda sent, deadline: seconds.extend(lock.seconds for lock in sent)
    )

    sync.delay(1)
    sync.apply_async((1,), countdown=100)
    sync.apply_async((1,), eta=datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100))
    sync.apply_async((1,), expires=50)

    assert seconds == pytest.approx([3600, 3700, 3700, 50], abs=30)


@pytest.mark.parametrize("expires", [5, -50])
def test_a_lock_that_is_short_anyway_is_not_looked_after_again(
    app: Celeriac, sync: Task[..., Any], monkeypatch: pytest.MonkeyPatch, expires: float
) -> None:
    locks, taken, confirmed = app.transport.locks(), list[Lock](), list[Lock]()

    def take(wanted: list[Lock], *, deadline: float) -> list[None]:
        taken.extend(wanted)
        return [None]

    monkeypatch.setattr(locks, "take", take)
    monkeypatch.setattr(locks, "confirm", lambda sent, deadline: confirmed.extend(sent))

    sync.apply_async((1,), expires=expires)

    assert [lock.seconds for lock in taken] == pytest.approx([max(1, expires)], abs=4)
    assert not confirmed


async def test_until_a_call_is_sent_its_lock_is_a_short_one(
    app: Celeriac, sync: Task[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    locks, seconds, confirmed = app.transport.locks(), list[float](), list[Lock]()

    def take(wanted: list[Lock], *, deadline: float) -> list[None]:
        assert not confirmed
        seconds.extend(lock.seconds for lock in wanted)
        return [None]

    monkeypatch.setattr(locks, "take", take)
    monkeypatch.setattr(locks, "confirm", lambda sent, deadline: confirmed.extend(sent))

    await sync.adelay(1)
    assert confirmed.pop().seconds == 3600
    await asyncio.to_thread(sync.delay, 1)
    assert confirmed.pop().seconds == 3600
    with app.client.batch():  # what the user does meanwhile may take its time
        sync.delay(1)
        sync.delay(2)

    assert seconds == [UNSENT_SECONDS] * 2 + [COLLECTED_SECONDS] * 2
    assert len(confirmed) == 2


def test_a_task_that_runs_eagerly_runs_each_time(app: Celeriac) -> None:
    runs: list[int] = []
    sync = app.task(name="shop.sync", unique="until_done")(runs.append)
    app.conf.task_always_eager = True

    sync.delay(1)
    sync.delay(1)

    assert runs == [1, 1]


def test_a_task_that_is_not_known_here_is_sent_each_time(app: Celeriac) -> None:
    app.send_task("elsewhere.sync")
    app.send_task("elsewhere.sync")

    assert len(sent(app)) == 2


@pytest.fixture
def index(app: Celeriac) -> Task[..., Any]:
    @app.task(name="shop.index", debounce=60, unique_on=["args.shop"])
    def index(shop: int, page: int = 0) -> None: ...

    return index


async def test_debounced_calls_have_one_result_and_a_turn_each(app: Celeriac, index: Task[..., Any]) -> None:
    results = [
        index.delay(1, 1),
        app.send_task("shop.index", (1, 2)),
        index.s(1, 3).delay(),
        await index.adelay(1, 4),
        *group(index.s(1, 5), index.s(1, 6)).delay().results,
    ]
    other = index.delay(2)

    assert len({result.id for result in results}) == 1
    assert other.id != results[0].id
    assert results[0].sent_state == "SCHEDULED"
    assert app.transport.size("celery") == 7
    assert app.transport.ready("celery") == 0


def test_a_debounced_call_that_something_waits_for_is_not_dropped_for_another(
    app: Celeriac, index: Task[..., Any]
) -> None:
    first = index.delay(1)

    linked = index.apply_async((1,), link=index.si(2))

    assert linked.id != first.id


def test_a_debounced_call_that_could_not_be_sent_keeps_nobody_waiting(
    app: Celeriac, index: Task[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Turn] = []
    monkeypatch.setattr(app.transport.bursts(), "leave", lambda turn, deadline: left.append(turn))
    failing: Any = Failing()

    with pytest.raises(BrokerUnreachable):
        index.apply_async((1,), producer=failing)

    assert [turn.name for turn in left] == ["shop.index[1]"]


def test_the_retry_of_a_debounced_call_has_no_turn(app: Celeriac, index: Task[..., Any]) -> None:
    index.apply_async((1,), task_id="x", retries=1, headers={"celeriac_burst": "1:shop.index[1]"})

    (again,) = deliveries(app)
    assert "celeriac_burst" not in again.envelope.headers


def test_what_was_never_sent_is_waited_for_only_for_a_while() -> None:
    burst, now = Burst(), 1000.0
    numbers = [burst.join(id_, now, 10.0)[1] for id_ in ("a", "b", "c")]
    assert burst.begin(numbers[0], now + 10) == MARGIN_SECONDS
    assert burst.begin(numbers[0], now + 40) == 30

    later = now + 10 + GRACE_SECONDS

    assert burst.begin(numbers[1], later) == 0
    assert burst.begin(numbers[0], later) == OVER
    assert burst.join("d", later, 10.0)[0] == "d"  # the result of the others is there


def test_the_last_call_runs_though_it_comes_after_the_grace_of_others() -> None:
    burst, now = Burst(), 1000.0
    one, two = (burst.join(id_, now, 10.0)[1] for id_ in "ab")

    assert burst.begin(one, now + 10 + GRACE_SECONDS) == 0
    assert burst.begin(two, now + 10 + GRACE_SECONDS) == 0


@pytest.mark.parametrize("given", [0, -1, True, "done", "until_finished", float("inf"), [1]])
def test_a_uniqueness_that_is_none_is_refused_where_it_is_written(app: Celeriac, given: Any) -> None:
    with pytest.raises(ConfigError, match=r"neither 'until_started', nor 'until_done', nor a number of sec"):
        app.task(unique=given)(len)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"throttle": 0}, "throttle=0 is no number of seconds above 0"),
        ({"debounce": -1}, "debounce=-1 is no number of seconds above 0"),
        ({"debounce": 5, "throttle": 5}, "debounce and throttle; there can be one of them"),
        ({"throttle": "1m"}, "throttle='1m' is no number of seconds above 0"),
        ({"unique": "until_done", "lock_seconds": -1}, "lock_seconds=-1 is no number of seconds above 0"),
        ({"unique": 5, "throttle": 5}, "unique and throttle; there can be one of them"),
        (
            {"unique_on": ["args.obj"]},
            "has nothing to tell apart: there is none of unique, debounce, throttle",
        ),
        ({"unique": 5, "unique_on": "args.obj"}, "unique_on='args.obj' is no list of paths"),
        ({"unique": 5, "unique_on": []}, r"unique_on=\[\] is no list of paths"),
        ({"unique": 5, "unique_on": ["obj"]}, "unique_on='obj' is no path to an argument"),
        ({"unique": 5, "unique_on": ["args.order"]}, "unique_on='args.order' names no parameter"),
    ],
)
def test_options_that_make_no_sense_are_refused_where_they_are_written(
    app: Celeriac, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        app.task(**options)(len)


def test_where_nothing_keeps_locks_the_call_says_what_to_set() -> None:
    app = Celeriac("shop", broker="amqp://", backend="rpc://", set_as_current=False)
    sync = app.task(name="shop.sync", unique="until_done")(lambda: None)

    with pytest.raises(ConfigError, match="Set task_limits_url: permits and locks are kept by redis://"):
        sync.delay()
