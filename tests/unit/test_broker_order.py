"""In which order the brokers of a list are tried."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from celeriac.errors import ConfigError
from celeriac.net.failover import Strategy, in_order

LIST = "redis://one;redis://two;redis://three"


@pytest.mark.parametrize("strategy", [None, "round-robin"])
def test_brokers_are_tried_as_they_stand(strategy: Strategy | None) -> None:
    assert in_order(LIST, strategy) == LIST


def test_shuffle_tries_them_in_any_order() -> None:
    seen = {in_order(LIST, "shuffle") for _ in range(200)}

    assert len(seen) > 1
    assert {tuple(sorted(url.split(";"))) for url in seen} == {tuple(sorted(LIST.split(";")))}


def test_a_function_chooses_the_order_and_may_be_endless() -> None:
    def backwards(urls: list[str]) -> Iterable[str]:
        return itertools.cycle(reversed(urls))

    assert in_order(LIST, backwards) == "redis://three;redis://two;redis://one"


def test_one_broker_needs_no_strategy() -> None:
    assert in_order("redis://one", "shuffle") == "redis://one"


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("slowest-first", "'round-robin', 'shuffle' or a function"),
        (lambda urls: ["redis://:secret@four"], r"chose 'redis://:\*\*@four'"),
        (lambda urls: [], "chose 'nothing'"),
    ],
)
def test_a_strategy_that_makes_no_sense_is_refused(strategy: Strategy, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        in_order(LIST, strategy)
