"""What limits are counted by: a value among the arguments, or an error where the mistake was made."""

from __future__ import annotations

import datetime
import enum
import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac.errors import ConfigError, UsageError
from celeriac.keypath import KeyPath


class Plan(enum.Enum):
    FREE = "free"


def pay(order: Any, tenant: Any = "nobody", *, plan: Any = None) -> None: ...


def loose(**named: Any) -> None: ...


@pytest.mark.parametrize(
    ("path", "args", "kwargs", "key"),
    [
        ("args.tenant", (1, "acme"), {}, "acme"),
        ("args.tenant", (1,), {"tenant": 7}, "7"),
        ("args.tenant", (1,), {}, "nobody"),
        ("args.plan", (1,), {"plan": Plan.FREE}, "free"),
        ("args.plan", (1,), {}, "None"),
        ("args.order.customer.id", ({"customer": {"id": 5}},), {}, "5"),
        ("args.order.customer.id", (SimpleNamespace(customer=SimpleNamespace(id=5)),), {}, "5"),
        ("args.order.1", (["a", "b"],), {}, "b"),
        ("args.order", (uuid.UUID(int=1),), {}, "00000000-0000-0000-0000-000000000001"),
        ("args.order", (datetime.date(2026, 11, 27),), {}, "2026-11-27"),
    ],
)
def test_a_key_is_found_however_it_is_given(
    path: str, args: tuple[Any, ...], kwargs: dict[str, Any], key: str
) -> None:
    assert KeyPath(path, "shop.pay", pay).key(args, kwargs) == key


def test_a_key_may_be_among_any_keywords() -> None:
    path = KeyPath("args.tenant", "shop.pay", loose)

    assert path.key((), {"tenant": 7}) == "7"
    with pytest.raises(UsageError, match=r"do not have args\.tenant"):
        path.key((), {"tenants": 7})


def test_a_long_key_is_shortened_to_one_of_its_own() -> None:
    path = KeyPath("args.order", "shop.pay", pay)

    keys = {path.key(("x" * 5000 + end,), {}) for end in "ab"}

    assert len(keys) == 2
    assert all(len(key) < 200 for key in keys)


@pytest.mark.parametrize("path", ["tenant", "args", "args.", "kwargs.tenant", "args.tenant..id", ""])
def test_what_is_no_path_is_refused_where_it_is_written(path: str) -> None:
    with pytest.raises(ConfigError, match=r"that looks like 'args\.tenant_id'"):
        KeyPath(path, "shop.pay", pay)


def test_a_parameter_that_there_is_not_is_refused_where_it_is_written() -> None:
    with pytest.raises(ConfigError, match=r"names no parameter .* order, tenant, plan"):
        KeyPath("args.tenant_id", "shop.pay", pay)


@pytest.mark.parametrize(
    ("order", "what"), [({}, "'customer' is missing in a dict"), ([], "'customer' is missing in a list")]
)
def test_a_call_without_the_key_is_not_sent(order: Any, what: str) -> None:
    with pytest.raises(UsageError, match=rf"was not sent: .*args\.order\.customer.*{what}"):
        KeyPath("args.order.customer", "shop.pay", pay).key((order,), {})


@pytest.mark.parametrize("value", [{}, [], object(), b"x"])
def test_what_is_no_key_is_not_sent(value: Any) -> None:
    with pytest.raises(UsageError, match="a key is text, a number"):
        KeyPath("args.order", "shop.pay", pay).key((value,), {})


def test_a_call_that_the_function_does_not_take_is_not_sent() -> None:
    with pytest.raises(UsageError, match="missing a required argument: 'order'"):
        KeyPath("args.order", "shop.pay", pay).key((), {})
