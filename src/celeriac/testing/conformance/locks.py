"""The obligations of `celeriac.locks.Locks`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from celeriac.locks import Lock, Locks
from celeriac.ports import Transport
from celeriac.testing.conformance.fixtures import TransportFixtures

LockOf = Callable[..., Lock]


class LockTests(TransportFixtures):
    """Of those who want a lock one has it, and the others hear who that is."""

    @pytest.fixture
    def locks(self, transport: Transport) -> Iterator[Locks]:
        """Yield the locks of the transport; the test is left out when it keeps none."""
        if not transport.caps.permits:
            pytest.skip("keeps no locks")
        with closing(transport.locks()) as locks:
            yield locks

    @pytest.fixture
    def lock(self) -> LockOf:
        """Return what makes locks of one name: ``lock(holder, seconds=…, other=…)``."""
        name = f"shop.pay[{uuid.uuid4().hex}]"

        def of(holder: str, seconds: float = 60.0, *, other: str = "") -> Lock:
            return Lock(name + other, holder, seconds)

        return of

    def test_the_first_has_the_lock_and_others_hear_who_that_is(self, locks: Locks, lock: LockOf) -> None:
        assert locks.take([lock("a"), lock("b")]) == [None, "a"]
        assert locks.take([lock("c")]) == ["a"]

    def test_who_asks_twice_hears_of_itself(self, locks: Locks, lock: LockOf) -> None:
        locks.take([lock("a")])

        assert locks.take([lock("a")]) == ["a"]

    def test_each_name_is_locked_by_itself(self, locks: Locks, lock: LockOf) -> None:
        assert locks.take([lock("a"), lock("b", other="2")]) == [None, None]

    def test_a_name_may_have_any_characters(self, locks: Locks, lock: LockOf) -> None:
        other = ' ["ü%",{"a b":1}]:\N{SNOWMAN}'

        assert locks.take([lock("é", other=other)]) == [None]
        assert locks.take([lock("b", other=other)]) == ["é"]

    def test_what_is_free_may_be_taken(self, locks: Locks, lock: LockOf) -> None:
        locks.take([lock("a")])

        assert locks.exchange([lock("a")], []) == []

        assert locks.take([lock("b")]) == [None]

    def test_only_the_holder_frees_it(self, locks: Locks, lock: LockOf) -> None:
        locks.take([lock("a")])

        locks.exchange([lock("b"), lock("a", other="2")], [])

        assert locks.take([lock("c")]) == ["a"]

    def test_keeping_says_what_is_held_still(self, locks: Locks, lock: LockOf) -> None:
        locks.take([lock("a"), lock("b", other="2")])

        kept = locks.exchange([lock("b", other="2")], [lock("a"), lock("x"), lock("b", other="2")])

        assert kept == [True, False, False]
        assert locks.take([lock("c"), lock("d", other="2")]) == ["a", None]

    def test_one_of_many_who_ask_at_once_has_it(
        self, transport: Transport, locks: Locks, lock: LockOf
    ) -> None:
        def ask(number: int) -> list[str | None]:
            with closing(transport.locks()) as mine:
                return [mine.take([lock(f"{number}", other=f"{turn}")])[0] for turn in range(20)]

        with ThreadPoolExecutor(4) as threads:
            told = list(threads.map(ask, range(4)))

        for holders in zip(*told, strict=True):
            assert holders.count(None) == 1
            assert set(holders) - {None} == {str(holders.index(None))}
