"""How many slots a worker has with ``--autoscale``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import pytest

from celeriac.node.autoscale import Autoscaler
from celeriac.node.dispatch import Dispatcher
from celeriac.pools.base import PoolOptions
from celeriac.pools.threads import ThreadPool
from pool_harness import CommandRunner


class Work:
    """As much of a dispatcher as the autoscaler looks at."""

    def __init__(self) -> None:
        self.in_pool = 0
        self.lined_up = 0

    def waiting(self) -> int:
        return self.lined_up

    def pump(self) -> None: ...


class Hands:
    """A pool's size, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setenv("AUTOSCALE_KEEPALIVE", "30")
        self.work = Work()
        self.pool = ThreadPool(PoolOptions(size=2), lambda: CommandRunner(Path()))
        monkeypatch.setattr(self.pool, "resize", lambda size: setattr(self.pool, "size", size))
        self.scaler = Autoscaler(self.pool, cast("Dispatcher", self.work), 8, 2, lambda: None)

    def after(self, seconds: float, *, in_pool: int, waiting: int = 0) -> int:
        self.now += seconds
        self.work.in_pool, self.work.lined_up = in_pool, waiting
        self.scaler.look()
        return self.pool.size


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    return Hands(monkeypatch)


def test_there_is_a_slot_for_everything_that_waits_up_to_the_most(hands: Hands) -> None:
    assert hands.after(1, in_pool=2, waiting=3) == 5
    assert hands.after(1, in_pool=5, waiting=90) == 8


def test_slots_go_when_they_were_not_needed_for_a_while(hands: Hands) -> None:
    assert hands.after(1, in_pool=2, waiting=6) == 8
    assert hands.after(10, in_pool=4) == 8
    assert hands.after(15, in_pool=0) == 8
    assert hands.after(10, in_pool=0) == 4  # as many as were needed in that time
    assert hands.after(31, in_pool=0) == 2  # never fewer than the fewest


def test_other_numbers_are_obeyed_at_once_and_refused_when_they_make_no_sense(hands: Hands) -> None:
    hands.scaler.update(5, 4)
    assert hands.pool.size == 4

    with pytest.raises(ValueError, match="between 4 and 3"):
        hands.scaler.update(3, None)
    assert hands.scaler.info() == {"max": 5, "min": 4, "current": 4, "qty": 0}
