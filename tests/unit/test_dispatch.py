"""How much a node fetches ahead."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.node.dispatch import Dispatcher


class Slots:
    """As much of a pool as is asked for here."""

    size = 4


def dispatcher(prefetch: int) -> Dispatcher:
    pool: Any = Slots()
    return Dispatcher(pool, "node@here", prefetch, lambda work: True)


def test_short_tasks_are_fetched_ahead_of_what_the_settings_ask_for() -> None:
    found = dispatcher(16)

    found.note(100, 0.01)

    assert found.prefetch() == 4 * 32
    assert found.fetches_ahead


def test_long_tasks_are_not() -> None:
    found = dispatcher(16)

    found.note(1, 1.0)

    assert found.prefetch() == 16
    assert not found.fetches_ahead


@pytest.mark.parametrize("prefetch", [0, 4])
def test_who_asks_for_one_message_per_slot_or_for_no_limit_gets_that(prefetch: int) -> None:
    found = dispatcher(prefetch)

    found.note(100, 0.01)

    assert found.prefetch() == prefetch
    assert not found.fetches_ahead
