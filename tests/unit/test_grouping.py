"""Which tests stay together when the suite runs in several processes."""

from __future__ import annotations

import logging
import os
import random

import pytest

from grouping import RABBITMQ_PROCESSES, Need, groups


@pytest.mark.together("here")
def test_the_runner_keeps_groups_together(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ and request.config.option.loadgroup:
        assert request.node.nodeid.endswith("@here")


def test_a_test_without_needs_may_run_anywhere() -> None:
    assert groups([Need("one"), Need("two")]) == [None, None]


def test_those_that_share_something_are_in_one_group() -> None:
    assert groups([Need("one", "fleet"), Need("two"), Need("three", "fleet")]) == ["fleet", None, "fleet"]


def test_those_on_rabbitmq_are_spread_evenly_over_a_few_processes() -> None:
    needs = [Need(str(number), on_rabbitmq=True) for number in range(20)]

    found = groups(needs)

    assert len(set(found)) == RABBITMQ_PROCESSES
    counts = [found.count(name) for name in set(found)]
    assert max(counts) - min(counts) <= 1


def test_those_on_rabbitmq_that_share_something_stay_together() -> None:
    needs = [Need(f"{fleet} {number}", fleet, True) for fleet in ("a", "b", "c") for number in range(5)]

    found = groups(needs)

    assert all(len(set(found[first : first + 5])) == 1 for first in (0, 5, 10))


def test_every_process_of_a_run_comes_to_the_same_answer_whatever_its_order() -> None:
    needs = [Need(str(number), on_rabbitmq=bool(number % 3)) for number in range(50)]
    shuffled = random.sample(needs, len(needs))

    assert dict(zip(shuffled, groups(shuffled), strict=True)) == dict(zip(needs, groups(needs), strict=True))


def test_half_a_character_may_be_logged() -> None:
    """A process of the run that cannot send its report ends, and the run with it."""
    logging.getLogger(__name__).warning("\ud800")
