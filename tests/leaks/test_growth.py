"""When what a process holds counts as flat."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from leaks.growth import Growth, growths
from leaks.vitals import Measure, Sample

TOTAL = 1000
MB = 1_000_000


def seen(measure: Measure, held: Callable[[int], int], moments: range = range(10, TOTAL + 1, 10)) -> Growth:
    """Return the growth of a measure that has these values, while the others stay as they are."""
    steady: dict[Measure, int] = {"memory": 40 * MB, "descriptors": 10, "threads": 3, "connections": 2}
    samples = [Sample("node", done, {**steady, measure: held(done)}) for done in moments]
    (growth,) = (growth for growth in growths(samples, TOTAL) if growth.measure == measure)
    return growth


def test_what_grows_in_the_first_tenth_only_is_flat() -> None:
    growth = seen("memory", lambda done: MB * (20 + min(done, TOTAL // 10)))

    assert growth.is_flat
    assert growth.late == growth.early == 120 * MB


@pytest.mark.parametrize("measure", ["descriptors", "threads", "connections"])
def test_one_that_is_lost_now_and_then_is_not_flat(measure: Measure) -> None:
    growth = seen(measure, lambda done: 10 + done // 200)

    assert not growth.is_flat


def test_memory_that_is_lost_with_every_call_is_not_flat() -> None:
    assert not seen("memory", lambda done: 40 * MB + done * 6000).is_flat


def test_what_is_open_for_a_moment_does_not_matter() -> None:
    growth = seen("descriptors", lambda done: 30 if done % 50 == 0 else 10)

    assert growth.is_flat
    assert growth.peak == 30


def test_what_shrinks_is_flat() -> None:
    assert seen("connections", lambda done: 20 - done // 100).is_flat


@pytest.mark.parametrize("moments", [range(10, 500, 10), range(500, TOTAL, 10)], ids=["ended", "came late"])
def test_nobody_can_say_of_a_process_that_came_or_went(moments: range) -> None:
    assert not seen("threads", lambda _: 1, moments).is_flat


def test_processes_and_measures_are_judged_one_by_one() -> None:
    # Given two processes, of which one loses descriptors
    samples = [
        Sample(process, done, {"memory": MB, "descriptors": 5 + lost * done, "threads": 1, "connections": 0})
        for process, lost in (("node", 0), ("child 1", 1))
        for done in range(10, TOTAL + 1, 10)
    ]

    grown = [(one.process, one.measure) for one in growths(samples, TOTAL) if not one.is_flat]

    assert grown == [("child 1", "descriptors")]
