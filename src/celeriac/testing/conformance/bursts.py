"""The obligations of `celeriac.bursts.Bursts`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from celeriac.bursts import OVER, Bursts, Turn
from celeriac.ports import Transport
from celeriac.testing.conformance.fixtures import TransportFixtures


class BurstTests(TransportFixtures):
    """Of calls that follow each other the last one runs; none is dropped before a later one has begun."""

    @pytest.fixture
    def bursts(self, transport: Transport) -> Iterator[Bursts]:
        """Yield the bursts of the transport; the test is left out when it keeps none."""
        if not transport.caps.permits:
            pytest.skip("keeps no bursts")
        with closing(transport.bursts()) as bursts:
            yield bursts

    @pytest.fixture
    def name(self) -> str:
        """Return what the calls have in common."""
        return f"shop.index[{uuid.uuid4().hex}]"

    def test_all_calls_have_the_id_of_the_first(self, bursts: Bursts, name: str) -> None:
        first, second = bursts.join(name, "a", 60, 120), bursts.join(name, "b", 60, 120)

        assert (first[0], second[0]) == ("a", "a")
        assert second[1] > first[1]
        assert bursts.join(name + "2", "c", 60, 120)[0] == "c"

    def test_only_the_last_one_runs(self, bursts: Bursts, name: str) -> None:
        one, two, three = (Turn(name, bursts.join(name, id_, 0, 60)[1]) for id_ in "abc")

        assert bursts.begin([three], 60) == [0]
        assert bursts.begin([one, two], 60) == [OVER, OVER]
        assert bursts.begin([], 60) == []

    def test_nothing_is_dropped_before_a_later_one_has_begun(self, bursts: Bursts, name: str) -> None:
        one = Turn(name, bursts.join(name, "a", 0, 60)[1])
        two = Turn(name, bursts.join(name, "b", 0, 60)[1])

        [seconds] = bursts.begin([one], 60)

        assert seconds > 0
        assert bursts.begin([two, one], 60) == [0, OVER]

    def test_who_is_early_asks_again_when_the_last_one_is_due(self, bursts: Bursts, name: str) -> None:
        one = Turn(name, bursts.join(name, "a", 0, 60)[1])
        bursts.join(name, "b", 30, 60)

        [seconds] = bursts.begin([one], 60)

        assert 20 < seconds < 32

    def test_nobody_waits_for_what_was_not_sent(self, bursts: Bursts, name: str) -> None:
        one = Turn(name, bursts.join(name, "a", 0, 60)[1])
        two = Turn(name, bursts.join(name, "b", 30, 60)[1])

        bursts.leave(two)
        bursts.leave(Turn(name + "2", 7))

        assert bursts.begin([one], 60) == [0]

    def test_what_has_begun_may_begin_again(self, bursts: Bursts, name: str) -> None:
        one = Turn(name, bursts.join(name, "a", 0, 60)[1])
        assert bursts.begin([one], 60) == [0]
        two = Turn(name, bursts.join(name, "b", 0, 60)[1])
        assert bursts.begin([two], 60) == [0]

        assert bursts.begin([one, two], 60) == [0, 0]

    def test_a_burst_is_over_when_its_last_call_begins(self, bursts: Bursts, name: str) -> None:
        one = Turn(name, bursts.join(name, "a", 0, 60)[1])
        bursts.begin([one], 60)

        id_, number = bursts.join(name, "b", 0, 60)

        assert id_ == "b"
        assert number > one.number

    def test_what_nobody_remembers_runs(self, bursts: Bursts, name: str) -> None:
        assert bursts.begin([Turn(name, 5), Turn(name, 4), Turn(name, 6)], 60) == [0, OVER, 0]

    def test_many_bursts_later_it_still_holds(self, bursts: Bursts, name: str) -> None:
        for number in range(60):
            first, last = (Turn(name, bursts.join(name, f"{number}", 0, 60)[1]) for _ in range(2))
            assert bursts.begin([last, first, last], 60) == [0, OVER, 0]

    def test_numbers_are_given_once(self, transport: Transport, bursts: Bursts, name: str) -> None:
        def join(number: int) -> list[tuple[str, int]]:
            with closing(transport.bursts()) as mine:
                return [mine.join(name, f"{number}-{turn}", 60, 60) for turn in range(20)]

        with ThreadPoolExecutor(4) as threads:
            told = [one for many in threads.map(join, range(4)) for one in many]

        assert len({number for _, number in told}) == 80
        assert len({id_ for id_, _ in told}) == 1
