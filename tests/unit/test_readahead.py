"""How many deliveries a node holds, and when it hands some back."""

from __future__ import annotations

import pytest

from celeriac.message import Started
from celeriac.node.readahead import ReadAhead, per_slot
from celeriac.node.surplus import all_take_long


@pytest.mark.parametrize(
    ("mean_seconds", "held"),
    [
        (None, 1),
        (60.0, 1),
        (0.1, 1),
        (0.04, 2),
        (0.01, 4),
        (0.001, 4),
        (0.0005, 8),
        (0.0, 128),
    ],
)
def test_a_slot_has_as_much_waiting_as_begins_soon(mean_seconds: float | None, held: int) -> None:
    assert per_slot(mean_seconds, fair=True) == held


@pytest.mark.parametrize(("mean_seconds", "held"), [(None, 1), (0.01, 1), (0.001, 4), (0.0005, 8)])
def test_who_asks_for_a_prefetch_is_read_ahead_for_with_short_tasks_only(
    mean_seconds: float | None, held: int
) -> None:
    assert per_slot(mean_seconds, fair=False) == held


def test_one_long_task_ends_the_reading_ahead_and_several_short_ones_begin_it_again() -> None:
    ahead = ReadAhead(2, fair=True)

    ahead.note(10, 0.01)
    short = ahead.deliveries(2)
    ahead.note(1, 1.0)
    long = ahead.deliveries(2)
    for _ in range(20):
        ahead.note(1, 0.001)

    assert (short, long, ahead.deliveries(2)) == (8, 2, 8)


def test_slots_that_are_still_to_come_have_their_messages_too() -> None:
    assert ReadAhead(8, fair=True).deliveries(slots=2) == 8


def test_few_messages_are_fetched_as_they_come_and_many_together() -> None:
    ahead = ReadAhead(2, fair=True)

    ahead.note(10, 0.1)
    few = ahead.is_much(2)
    for _ in range(30):
        ahead.note(100, 0.01)

    assert (few, ahead.is_much(2)) == (False, True)


NOW = 1000.0


@pytest.mark.parametrize(
    ("began", "stuck"),
    [
        ([NOW - 5, NOW - 1], True),
        ([NOW - 5, NOW - 0.2], False),
        ([NOW - 5], False),
        ([], False),
        ([NOW - 5, NOW + 60], False),  # the clock was set back
    ],
    ids=["long", "one just began", "a slot is free", "idle", "no telling"],
)
def test_what_waits_goes_back_when_every_slot_is_taken_for_long(began: list[float], stuck: bool) -> None:
    running = [Started(number=number, pid=1, at=at) for number, at in enumerate(began, 1)]

    assert all_take_long(running, 2, NOW) is stuck
