"""The obligations of `celeriac.permits.Permits`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest

from celeriac.permits import Claim, Permits
from celeriac.ports import Transport
from celeriac.testing.conformance.fixtures import TransportFixtures

ClaimOf = Callable[..., Claim]


class PermitTests(TransportFixtures):
    """Only so many hold a permit at a time, whoever asks."""

    @pytest.fixture
    def permits(self, transport: Transport) -> Iterator[Permits]:
        """Yield the permits of the transport; the test is left out when it keeps none."""
        if not transport.caps.permits:
            pytest.skip("keeps no permits")
        with closing(transport.permits()) as permits:
            yield permits

    @pytest.fixture
    def claim(self) -> ClaimOf:
        """Return what makes claims to one thing: ``claim(holder, limit=…)``."""
        limited = f"shop.pay[{uuid.uuid4().hex}]"

        def of(holder: str, limit: int = 2, *, other: str = "") -> Claim:
            return Claim(limited + other, limit, holder)

        return of

    def test_only_so_many_hold_a_permit(self, permits: Permits, claim: ClaimOf) -> None:
        assert permits.exchange([], [claim("a"), claim("b"), claim("c")]) == [True, True, False]
        assert permits.exchange([], [claim("d")]) == [False]

    def test_what_is_given_back_goes_to_the_first_in_line(self, permits: Permits, claim: ClaimOf) -> None:
        permits.exchange([], [claim("a"), claim("b"), claim("first"), claim("second")])

        assert permits.exchange([claim("a")], [claim("late"), claim("second")]) == [False, False]
        assert permits.exchange([], [claim("first")]) == [True]
        assert permits.exchange([claim("b")], [claim("late")]) == [False]
        assert permits.exchange([], [claim("second"), claim("late")]) == [True, False]

    def test_a_place_in_line_can_be_given_back(self, permits: Permits, claim: ClaimOf) -> None:
        permits.exchange([], [claim("a"), claim("b"), claim("first"), claim("second")])

        assert permits.exchange([claim("first"), claim("a")], [claim("second")]) == [True]

    def test_asking_for_what_is_held_holds_it_once(self, permits: Permits, claim: ClaimOf) -> None:
        assert permits.exchange([], [claim("a")]) == [True]
        assert permits.exchange([], [claim("a")]) == [True]
        assert permits.exchange([], [claim("b"), claim("c")]) == [True, False]

    def test_giving_back_what_is_not_there_does_not_matter(self, permits: Permits, claim: ClaimOf) -> None:
        assert permits.exchange([claim("nobody")], []) == []
        permits.exchange([], [claim("a")])

        assert permits.exchange([claim("a"), claim("a")], [claim("b"), claim("c"), claim("d")]) == [
            True,
            True,
            False,
        ]

    def test_each_thing_is_counted_by_itself(self, permits: Permits, claim: ClaimOf) -> None:
        wanted = [claim("a", 1), claim("b", 1, other="2"), claim("c", 1), claim("d", 1, other="2")]

        assert permits.exchange([], wanted) == [True, True, False, False]

    def test_a_limit_that_was_raised_lets_more_begin(self, permits: Permits, claim: ClaimOf) -> None:
        assert permits.exchange([], [claim("a", 1), claim("b", 1)]) == [True, False]

        assert permits.exchange([], [claim("b", 3), claim("c", 3), claim("d", 3)]) == [True, True, False]

    def test_a_limit_that_was_lowered_lets_nobody_begin(self, permits: Permits, claim: ClaimOf) -> None:
        assert permits.exchange([], [claim("a", 2), claim("b", 2)]) == [True, True]

        assert permits.exchange([claim("a")], [claim("c", 1)]) == [False]
        assert permits.exchange([claim("b")], [claim("c", 1)]) == [True]

    def test_renewing_says_what_is_still_held(self, permits: Permits, claim: ClaimOf) -> None:
        permits.exchange([], [claim("a", 1), claim("waits", 1)])

        assert permits.renew([claim("never", 1), claim("a", 1), claim("waits", 1)]) == [False, True, False]
        assert permits.renew([]) == []

    def test_nobody_gets_more_when_all_ask_at_once(
        self, transport: Transport, permits: Permits, claim: ClaimOf
    ) -> None:
        def ask(number: int) -> int:
            with closing(transport.permits()) as mine:
                wanted = [claim(f"{number}-{turn}", 5) for turn in range(20)]
                return sum(mine.exchange([], [one])[0] for one in wanted)

        with ExitStack() as stack:
            threads = stack.enter_context(ThreadPoolExecutor(4))
            granted = list(threads.map(ask, range(4)))

        assert sum(granted) == 5
