"""Locks end by themselves, also where a clock was set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from celeriac import transports
from celeriac.clock import FakeClock
from celeriac.locks import Lock, Locks
from redis_probe import command

ONE, TWO = (Lock("shop.pay[1]", holder, 60.0) for holder in ("one", "two"))


class Case:
    """Locks, and a way to have time pass for them."""

    def __init__(self, locks: Locks, advance: Callable[[float], object]) -> None:
        self.locks = locks
        self.advance = advance


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    clock = FakeClock()
    advance: Callable[[float], object] = clock.advance
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")

        def advance(seconds: float) -> object:
            # The server's clock is not ours to set; the ends of keys are.
            left = int(command(url, "PTTL", "celeriac.lock:shop.pay[1]"))
            return command(url, "PEXPIRE", "celeriac.lock:shop.pay[1]", left - round(seconds * 1000))

    else:
        url = f"memory://{tmp_path.name}" if request.param == "memory" else f"sqlite:///{tmp_path}/locks.db"
    transport = transports.connect(url, {"clock": clock})
    with closing(transport), closing(transport.locks()) as locks:
        yield Case(locks, advance)


def test_a_lock_ends_when_its_time_is_over(case: Case) -> None:
    assert case.locks.take([ONE]) == [None]

    case.advance(59)
    assert case.locks.take([TWO]) == ["one"]
    case.advance(2)

    assert case.locks.exchange([], [ONE]) == [False]
    assert case.locks.take([TWO]) == [None]


def test_a_lock_that_is_kept_lasts_from_then_on(case: Case) -> None:
    case.locks.take([ONE])

    case.advance(59)
    assert case.locks.exchange([], [ONE]) == [True]
    case.advance(59)

    assert case.locks.take([TWO]) == ["one"]


def test_a_lock_can_be_cut_short(case: Case) -> None:
    case.locks.take([ONE])

    case.locks.exchange([], [Lock(ONE.name, ONE.holder, 12.0)])
    case.advance(13)

    assert case.locks.take([TWO]) == [None]


def test_a_lock_whose_call_was_sent_lasts_from_then_on(case: Case) -> None:
    case.locks.take([msgspec.structs.replace(ONE, seconds=12.0)])

    case.advance(11)
    case.locks.confirm([ONE])
    case.advance(59)
    assert case.locks.take([TWO]) == ["one"]
    case.advance(2)

    assert case.locks.take([TWO]) == [None]


def test_that_a_call_was_sent_is_no_news_of_a_lock_that_is_kept_or_another_s(case: Case) -> None:
    case.locks.take([ONE])
    case.locks.confirm([TWO])
    case.locks.exchange([], [msgspec.structs.replace(ONE, seconds=12.0)])

    case.locks.confirm([ONE])
    case.advance(13)

    assert case.locks.take([TWO]) == [None]


def test_a_lock_whose_call_was_sent_is_kept_and_freed_as_before(case: Case) -> None:
    case.locks.take([ONE])
    case.locks.confirm([ONE])
    assert case.locks.take([TWO]) == ["one"]
    assert case.locks.exchange([], [ONE]) == [True]

    case.locks.exchange([ONE], [])
    case.locks.confirm([ONE])

    assert case.locks.take([TWO]) == [None]


def test_a_machine_that_was_restarted_keeps_no_lock_of_the_time_before(tmp_path: Path) -> None:
    url, clock = f"sqlite:///{tmp_path}/locks.db", FakeClock()
    with closing(transports.connect(url, {"clock": clock}).locks()) as before:
        before.take([ONE])

    clock.advance(-1_000_000)

    with closing(transports.connect(url, {"clock": clock}).locks()) as after:
        assert after.take([TWO]) == [None]
