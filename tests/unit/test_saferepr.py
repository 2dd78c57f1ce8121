"""Short and safe reprs."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

from celeriac.saferepr import saferepr


class Broken:
    def __repr__(self) -> str:
        raise ValueError("no")


class Slow(list[Any]):
    def __iter__(self) -> Any:
        raise AssertionError("the items of a huge list are not all looked at")


@pytest.mark.parametrize(
    "value",
    [
        (), (1,), (2, 3), [1, 2], {}, {"x": 1, "y": None}, "text", b"\xff", 1, None, 1.5, True, {1}, set(),
        frozenset([1]), ("é'\"",), {"deep": [({"er": [1, (2,)]},)]}, OrderedDict(a=1), range(3), {1: {2: 3}},
    ],
)  # fmt: skip
def test_short_values_look_as_repr_has_them(value: Any) -> None:
    assert saferepr(value) == repr(value)


@pytest.mark.parametrize(
    "value",
    ["x" * 10_000_000, [1] * 10_000_000, {"k" * 5_000: 1}, ["y" * 2000] * 50, [[[1] * 5000]], b"z" * 5000],
)
def test_long_values_are_cut_with_dots(value: Any) -> None:
    text = saferepr(value)

    assert len(text) == 1024
    assert text.endswith("...")
    assert repr(value)[:900] == text[:900]


def test_the_limit_can_be_chosen() -> None:
    assert saferepr([1, 2, 3, 4, 5], max_chars=10) == "[1, 2, ..."
    assert saferepr("abc", max_chars=5) == "'abc'"


def test_cycles_end_in_dots() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    loops: dict[str, Any] = {}
    loops["self"] = loops

    assert saferepr(loop) == "[1, [...]]"
    assert saferepr(loops) == "{'self': {...}}"


def test_the_same_object_twice_is_no_cycle() -> None:
    shared = [1]

    assert saferepr([shared, shared, object]) == "[[1], [1], <class 'object'>]"


def test_deep_nesting_ends_in_dots() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]

    assert "[...]" in saferepr(value)


def test_a_repr_that_raises_is_told_about_and_survived() -> None:
    assert "Broken" in saferepr((Broken(), 1))
    assert "ValueError" in saferepr({Broken(): 1})


def test_numbers_that_python_refuses_to_print_are_described() -> None:
    assert saferepr((1 << 100_000,)) == "(<int of 100001 bits>,)"
