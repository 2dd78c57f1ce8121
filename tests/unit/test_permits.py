"""Permits end when nobody renews them, also where a clock was set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from celeriac import transports
from celeriac.clock import FakeClock
from celeriac.permits import PERMIT_SECONDS, Claim, Permits
from celeriac.transports.memory_permits import MemoryPermits
from redis_probe import command

ONE, TWO, THREE = (Claim("shop.pay", 1, holder) for holder in ("one", "two", "three"))


class Case:
    """Permits, and a way to have time pass for them."""

    def __init__(self, permits: Permits, advance: Callable[[float], object]) -> None:
        self.permits = permits
        self.advance = advance


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    clock = FakeClock()
    advance: Callable[[float], object] = clock.advance
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")

        def advance(seconds: float) -> object:
            # The server's clock is not ours to set; the ends of permits are.
            for holder in (b"one", b"two", b"three"):
                if command(url, "ZSCORE", "celeriac.permits:shop.pay", holder) is not None:
                    command(url, "ZINCRBY", "celeriac.permits:shop.pay", -seconds, holder)
            return None

    else:
        url = f"memory://{tmp_path.name}" if request.param == "memory" else f"sqlite:///{tmp_path}/permits.db"
    transport = transports.connect(url, {"clock": clock})
    with closing(transport), closing(transport.permits()) as permits:
        yield Case(permits, advance)


def test_a_permit_that_nobody_renews_is_free_after_its_time(case: Case) -> None:
    assert case.permits.exchange([], [ONE, TWO]) == [True, False]

    case.advance(PERMIT_SECONDS - 1)
    assert case.permits.exchange([], [TWO]) == [False]
    case.advance(2)

    assert case.permits.renew([ONE]) == [False]
    assert case.permits.exchange([], [TWO, ONE]) == [True, False]


def test_a_permit_that_is_renewed_is_kept(case: Case) -> None:
    case.permits.exchange([], [ONE, TWO])

    for _ in range(3):
        case.advance(PERMIT_SECONDS - 1)
        assert case.permits.renew([ONE]) == [True]
        assert case.permits.exchange([], [TWO]) == [False]


def test_a_permit_that_is_not_to_be_renewed_ends_by_itself(case: Case) -> None:
    one, two = (Claim("shop.pay", 1, holder, keeps_seconds=60.0) for holder in ("one", "two"))
    assert case.permits.exchange([], [one, two]) == [True, False]

    for _ in range(5):
        case.advance(11.0)
        assert case.permits.exchange([], [one, two]) == [
            True,
            False,
        ]  # who asks again does not keep it longer
    case.advance(6.0)

    assert case.permits.exchange([], [two]) == [True]


def test_who_stands_in_line_and_does_not_ask_again_keeps_nobody_waiting(case: Case) -> None:
    case.permits.exchange([], [ONE, TWO])
    case.advance(PERMIT_SECONDS / 2)
    case.permits.exchange([], [ONE, THREE])
    case.advance(PERMIT_SECONDS / 2 + 1)

    assert case.permits.exchange([ONE], [THREE]) == [True]


def test_no_permit_lasts_longer_because_a_clock_was_set_back(case: Case) -> None:
    if isinstance(case.permits, MemoryPermits):
        pytest.skip("lives as long as its clock")
    case.permits.exchange([], [ONE])

    case.advance(-3600)
    case.permits.exchange([], [TWO])  # somebody looks, and it ends as if it were new, at the latest
    case.advance(PERMIT_SECONDS + 1)

    assert case.permits.exchange([], [TWO]) == [True]
