"""Backoff: how long to wait before the next try."""

from __future__ import annotations

from itertools import islice

import pytest

from celeriac.backoff import CONNECTION_INTERVALS, exponential, intervals, left_of, publish_intervals


@pytest.mark.parametrize(
    ("retries", "factor", "maximum", "seconds"),
    [
        (0, 1, 600, 1),
        (1, 1, 600, 2),
        (5, 1, 600, 32),
        (10, 1, 600, 600),
        (3, True, 600, 8),
        (3, 5, 600, 40),
        (2, 2.9, 600, 8),
        (0, 0.1, 600, 1),
        (0, 700, 600, 600),
        (3, 1, 0, 0),
        (3, 1, -5, 0),
        (1_000_000, 1, 600, 600),
        (1_000_000, 3, 2**40, 2**40),
        (-1, 1, 600, 1),
    ],
)
def test_the_delay_doubles_up_to_the_maximum(
    retries: int, factor: float, maximum: float, seconds: int
) -> None:
    assert exponential(retries, factor=factor, maximum=maximum, full_jitter=False) == seconds


def test_full_jitter_picks_anything_up_to_the_delay() -> None:
    assert exponential(3, pick=lambda below: below - 1) == 8
    assert exponential(3, pick=lambda below: 0) == 0
    assert {exponential(2) for _ in range(200)} == {0, 1, 2, 3, 4}


def test_intervals_grow_by_steps_and_end() -> None:
    assert list(intervals(0, 0.25, 0.5, 4)) == [0, 0.25, 0.5, 0.5]
    assert list(islice(intervals(*CONNECTION_INTERVALS), 4)) == [2, 4, 4, 4]


def test_a_publish_policy_may_leave_things_out_and_may_never_end() -> None:
    assert list(publish_intervals(None)) == [0, 0.2, 0.4]
    assert list(publish_intervals({"max_retries": 2, "interval_start": 1, "interval_step": None})) == [1, 1]
    assert len(list(islice(publish_intervals({"max_retries": None}), 50))) == 50
    assert list(publish_intervals({"max_retries": 0})) == []


@pytest.mark.parametrize(
    ("pause", "took", "left"), [(4, 0, 4), (4, 1, 3), (4, 3.8, 0.5), (4, 9, 0.5), (0, 9, 0)]
)
def test_a_long_attempt_is_a_part_of_the_pause(pause: float, took: float, left: float) -> None:
    assert left_of(pause, took, least=0.5) == left
