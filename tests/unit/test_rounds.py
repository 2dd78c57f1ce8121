"""Whose message comes next: the rule by itself, and what a task says about it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.app import Celeriac
from celeriac.errors import ConfigError, UsageError
from celeriac.message import Delivery
from celeriac.ports import ConsumeSpec
from celeriac.queues import direct_queue
from celeriac.rounds import FAIR_KEY_HEADER, Choice, fair_key, join, next_ones
from desk import new_app


@pytest.mark.parametrize(
    ("now", "last", "number"),
    [(0, None, 0), (7, None, 7), (7, 7, 8), (7, 40, 41), (7, 3, 7)],
)
def test_a_message_joins_the_first_round_in_which_its_key_has_none(
    now: int, last: int | None, number: int
) -> None:
    assert join(now, last) == number


@pytest.mark.parametrize(
    ("state", "waiting", "others", "limit", "choice"),
    [
        ((0, None), [0, 0, 1], 0, 2, Choice(2, 0, 0, None)),
        ((0, None), [0, 1, 2], 9, 4, Choice(2, 2, 1, 1)),
        ((0, 0), [0, 5, 6], 9, 4, Choice(1, 3, 3, 3)),
        ((3, 1), [3, 4], 1, 9, Choice(2, 1, 4, 3)),
        ((3, None), [], 2, 9, Choice(0, 2, 4, 4)),
        ((3, None), [], 0, 9, Choice(0, 0, 3, None)),
    ],
)
def test_messages_without_a_key_take_turns_with_the_others(
    state: tuple[int, int | None], waiting: list[int], others: int, limit: int, choice: Choice
) -> None:
    assert next_ones(*state, waiting, others, limit) == choice


@given(
    st.lists(st.tuples(st.sampled_from("abc-"), st.integers(0, 3)), max_size=60),
    st.integers(1, 5),
)
def test_in_a_round_every_key_is_served_once_at_most(steps: list[tuple[str, int]], limit: int) -> None:
    now, plain, others = 0, None, 0
    last: dict[str, int] = {}
    waiting: list[tuple[int, int, str]] = []
    served: dict[str, list[int]] = {}  # by key, in which rounds
    for order, (who, take) in enumerate(steps):
        if who == "-":
            others += 1
        else:
            last[who] = join(now, last.get(who))
            waiting = sorted([*waiting, (last[who], order, who)])
        if take:
            choice = next_ones(now, plain, [number for number, *_ in waiting[:limit]], others, limit)
            assert choice.keyed + choice.plain == min(limit, len(waiting) + others)
            assert choice.now >= now
            for number, _, key in waiting[: choice.keyed]:
                assert number <= choice.now
                served.setdefault(key, []).append(number)
            waiting, others = waiting[choice.keyed :], others - choice.plain
            now, plain = choice.now, choice.last
            assert not waiting or waiting[0][0] >= now

    assert all(len(set(numbers)) == len(numbers) for numbers in served.values())


@pytest.mark.parametrize("headers", [{}, {FAIR_KEY_HEADER: 7}, {FAIR_KEY_HEADER: "x" * 201}])
def test_a_header_that_is_no_key_counts_as_none(headers: dict[str, Any]) -> None:
    assert fair_key(headers) is None


async def sent(app: Celeriac) -> list[Delivery]:
    consumer = await app.transport.consumer(ConsumeSpec(queues=(direct_queue("celery"),), node="me"))
    taken = [*await consumer.receive(100)]
    await consumer.close()
    return taken


async def test_a_call_says_whom_it_is_for_and_what_it_is_limited_by() -> None:
    app = new_app()
    pay = app.task(name="shop.pay", fair_by="args.tenant", per="args.order.id", concurrency_limit=2)(
        lambda order, tenant="nobody": None
    )

    pay.delay({"id": 5}, tenant="acme")
    app.send_task("shop.pay", ({"id": 6},))

    headers = [delivery.envelope.headers for delivery in await sent(app)]
    assert [one[FAIR_KEY_HEADER] for one in headers] == ["acme", "nobody"]
    assert [one["celeriac_limit_key"] for one in headers] == ["5", "6"]


async def test_tasks_without_it_say_nothing() -> None:
    app = new_app()

    app.task(name="shop.pay")(lambda: None).delay()

    [delivery] = await sent(app)
    assert FAIR_KEY_HEADER not in delivery.envelope.headers


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("tenant", "fair_by='tenant' is no path to an argument"),
        ("args.customer", "fair_by='args.customer' names no parameter of its function, which has tenant"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_where_it_is_written(path: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        new_app().task(fair_by=path)(lambda tenant: None)


def test_a_call_without_the_key_is_refused_where_it_is_made() -> None:
    pay = new_app().task(name="shop.pay", fair_by="args.tenant.id")(lambda tenant: None)

    with pytest.raises(UsageError, match=r"do not have args\.tenant\.id \(fair_by=\)"):
        pay.delay({"name": "acme"})


def test_where_the_broker_has_one_line_for_all_the_call_says_what_to_do() -> None:
    app = Celeriac("shop", broker="amqp://guest:sekrit@localhost", set_as_current=False)
    pay = app.task(name="shop.pay", fair_by="args.tenant")(lambda tenant: None)

    with pytest.raises(ConfigError, match=r"fair_by=.*Use a Redis or SQLite broker") as caught:
        pay.delay("acme")

    assert "sekrit" not in str(caught.value)
