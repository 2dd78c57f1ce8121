"""Where tasks wait that begin only so often in a worker: a few in it, the others at the broker."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.clock import FakeClock
from celeriac.message import TaskHeaders
from celeriac.node import rates
from celeriac.node.policy import Policies
from celeriac.node.rates import Rates
from celeriac.node.turnstile import MOST_OF_A_KIND, PARK_MOST_SECONDS
from celeriac.node.work import Ledger
from job_factory import memory_app


class Bench:
    """Tasks of two kinds, and the lines in which they wait."""

    def __init__(self, rate: str) -> None:
        self.clock = FakeClock()
        self.rates = Rates(self.clock, lambda work: None)
        self._ledger = Ledger(lambda work: None)
        app = memory_app()
        for name in ("rated", "other"):
            app.task(name=name, rate_limit=rate)(lambda: None)
        self._policies = Policies(app, None, None)

    def come(self, name: str = "rated") -> float | None:
        """Have a task come; return how many seconds it is parked, None: it was taken in."""
        until = self.rates.parked_until(name)
        if until is not None:
            return until - self.clock.time()
        delivery: Any = None
        policy = self._policies.get(name)
        assert policy is not None
        self.rates.may_begin(self._ledger.open(delivery, TaskHeaders(task=name, id="x"), policy))
        return None


async def test_a_few_wait_here_and_the_others_are_parked_over_the_time_in_which_they_can_begin() -> None:
    bench = Bench("1/s")

    parked = [bench.come() for _ in range(1 + MOST_OF_A_KIND + 200)]

    first = 1 + MOST_OF_A_KIND  # one began
    assert parked[:first] == [None] * first
    later = [seconds for seconds in parked[first:] if seconds is not None]
    assert len(later) == 200
    assert later[:2] == pytest.approx([(MOST_OF_A_KIND + 1) / 2, (MOST_OF_A_KIND + 2) / 2])
    assert later[-1] == PARK_MOST_SECONDS


async def test_for_a_quick_rate_as_many_wait_here_as_begin_before_others_are_back() -> None:
    bench = Bench("40/s")

    parked = [bench.come() for _ in range(100)]

    assert parked.index(next(seconds for seconds in parked if seconds is not None)) == 1 + 80


async def test_many_kinds_hold_no_more_than_one_and_what_may_begin_at_once_is_taken_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rates, "MOST_HELD", 4)
    bench = Bench("1/h")

    assert [bench.come() for _ in range(5)] == [None] * 5
    assert bench.come() == PARK_MOST_SECONDS
    assert bench.come("other") is None
    assert bench.rates.parked_until("other") is not None
