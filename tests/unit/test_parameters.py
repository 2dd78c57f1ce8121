"""A wrong call is found before it is sent, in Python's own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.parameters import Parameters


def two(x: Any, y: Any) -> None: ...
def one(x: Any) -> None: ...
def default(x: Any, y: Any = 1) -> None: ...
def positional_only(x: Any, /, y: Any) -> None: ...
def keyword_only(x: Any, *, k: Any, d: Any = 1) -> None: ...
def keywords_only(*, k: Any, j: Any, i: Any) -> None: ...
def anything(*args: Any, **kwargs: Any) -> None: ...
def some(x: Any, *rest: Any, **kwargs: Any) -> None: ...
def none() -> None: ...
def shadowing(x: Any, /, **kwargs: Any) -> None: ...


FUNCTIONS = [two, one, default, positional_only, keyword_only, keywords_only, anything, some, none, shadowing]


def complaint(function: Callable[..., Any], args: list[int], kwargs: dict[str, int]) -> str | None:
    try:
        function(*args, **kwargs)
    except TypeError as exc:
        return str(exc)
    return None


@given(
    function=st.sampled_from(FUNCTIONS),
    args=st.lists(st.just(0), max_size=4),
    names=st.sets(st.sampled_from(["x", "y", "k", "d", "z", "j", "i"]), max_size=3),
)
def test_it_refuses_exactly_what_python_refuses(
    function: Callable[..., Any], args: list[int], names: set[str]
) -> None:
    kwargs = dict.fromkeys(sorted(names), 0)
    expected = complaint(function, args, kwargs)

    try:
        Parameters(function).check(args, kwargs)
        refused = False
    except TypeError:
        refused = True

    assert refused == (expected is not None)


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (two, [1], {}),
        (two, [], {}),
        (two, [1, 2, 3], {}),
        (one, [1, 2], {}),
        (none, [1], {}),
        (default, [1, 2, 3], {}),
        (two, [1], {"z": 1}),
        (two, [1], {"x": 1}),
        (keyword_only, [1], {}),
        (keywords_only, [], {}),
    ],
)
def test_it_uses_pythons_words(function: Callable[..., Any], args: list[int], kwargs: dict[str, int]) -> None:
    expected = complaint(function, args, kwargs)

    with pytest.raises(TypeError) as caught:
        Parameters(function).check(args, kwargs)

    assert str(caught.value) == expected


def test_a_bound_task_is_checked_without_its_self() -> None:
    def run(self: Any, x: int) -> None: ...

    Parameters(run, skip_first=True).check([1], {})
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        Parameters(run, skip_first=True).check([], {})
