"""How much a node fetches ahead."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac.message import Delivery, Envelope, Job, Props, TaskHeaders
from celeriac.node.dispatch import Dispatcher
from celeriac.node.readahead import ReadAhead
from celeriac.node.work import Work


class Slots:
    """As much of a pool as is asked for here."""

    size = 4

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def free(self, *, short: bool) -> int:
        return self.size - len(self.jobs)

    def submit(self, jobs: Sequence[Job]) -> None:
        self.jobs += jobs


def dispatcher(prefetch: int) -> Dispatcher:
    pool: Any = Slots()
    return Dispatcher(pool, "node@here", ReadAhead(prefetch, fair=False), lambda work: True, lambda: True)


def work(number: int) -> Work:
    envelope = Envelope(headers={}, body=b"", properties=Props())
    policy: Any = SimpleNamespace(short=False, soft_seconds=None, hard_seconds=None)
    headers = TaskHeaders(task="add", id=str(number))
    return Work(number, Delivery(envelope=envelope, queue="celery"), headers, policy)


def test_nothing_begins_while_others_may_have_been_given_it() -> None:
    sure = False
    slots = Slots()
    pool: Any = slots
    found = Dispatcher(pool, "node@here", ReadAhead(4, fair=True), lambda work: True, lambda: sure)
    found.add(work(1))

    found.pump()
    before = len(slots.jobs)
    sure = True
    found.pump()

    assert (before, len(slots.jobs)) == (0, 1)


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
