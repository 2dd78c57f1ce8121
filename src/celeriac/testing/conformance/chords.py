"""What backends owe to groups and chords."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import msgspec
import pytest

from celeriac import states
from celeriac.backends import BackendSpec
from celeriac.message import Outcome
from celeriac.ports import CountsParts, ResultBackend
from celeriac.testing.conformance.backend_fixtures import BackendFixtures
from celeriac.testing.conformance.messages import PATIENCE_SECONDS, process, read_line
from celeriac.testing.conformance.outcomes import failure, store, success


def members(outcomes: list[Outcome]) -> list[Any]:  # Any: nested result tuples
    """Return the result tuples of a chord's header."""
    return [[[outcome.id, None], None] for outcome in outcomes]


class ChordTests(BackendFixtures):
    """Groups are kept; a chord's body is started exactly once."""

    def test_a_group_is_kept_until_it_is_deleted(self, client: ResultBackend, worker: ResultBackend) -> None:
        if not self.has_groups:
            pytest.skip("this backend keeps no groups")
        group_id = str(uuid.uuid4())
        shape = [[group_id, None], [[["one", None], None], [["nested", None], [[["two", None], None]]]]]

        client.save_group(group_id, shape)

        kept = worker.restore_group(group_id)
        assert msgspec.to_builtins(kept) == shape
        worker.delete_group(group_id)
        assert client.restore_group(group_id) is None

    def test_a_group_nobody_saved_is_none(self, client: ResultBackend) -> None:
        if not self.has_groups:
            pytest.skip("this backend keeps no groups")
        assert client.restore_group("unknown") is None

    def test_the_last_part_gets_all_parts_in_order(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        chord_id, outcomes = self._start(client, [success(n) for n in range(5)])

        got = [self._part(worker, chord_id, index, outcomes[index]) for index in (3, 0, 4, 1)]
        assert got == [None] * 4
        everything = self._part(worker, chord_id, 2, outcomes[2])

        assert everything is not None
        assert [(o.id, o.state, o.result) for o in everything] == [
            (o.id, states.SUCCESS, n) for n, o in enumerate(outcomes)
        ]

    def test_a_member_that_is_a_group_has_the_list_of_its_values(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        if not self.has_chords:
            pytest.skip("this backend has no chords")
        chord_id, outcomes = str(uuid.uuid4()), [success(0), success(1), success(2)]
        one, *others = members(outcomes)
        client.start_chord(chord_id, 3, [one, [["inner", None], others]])

        first = [worker.chord_part(chord_id, index, outcomes[index]) for index in (1, 0)]
        everything = worker.chord_part(chord_id, 2, outcomes[2])

        assert first == [None, None]
        assert everything is not None
        assert [part.result for part in everything] == [0, [1, 2]]

    def test_a_chord_of_one(self, client: ResultBackend, worker: ResultBackend) -> None:
        chord_id, [only] = self._start(client, [success("alone")])

        everything = self._part(worker, chord_id, 0, only)

        assert everything is not None
        assert [o.result for o in everything] == ["alone"]

    def test_a_failed_part_counts_and_keeps_its_error(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        chord_id, outcomes = self._start(client, [success(1), failure(ValueError("boom", 42))])

        assert self._part(worker, chord_id, 1, outcomes[1]) is None
        everything = self._part(worker, chord_id, 0, outcomes[0])

        assert everything is not None
        assert [o.state for o in everything] == [states.SUCCESS, states.FAILURE]
        assert isinstance(everything[1].result, ValueError)
        assert everything[1].result.args == ("boom", 42)

    def test_a_part_that_comes_twice_counts_once(self, client: ResultBackend, worker: ResultBackend) -> None:
        chord_id, outcomes = self._start(client, [success(n) for n in range(3)])

        got = [self._part(worker, chord_id, index, outcomes[index]) for index in (0, 0, 1, 0, 1)]
        assert got == [None] * 5
        again = success("a second run, another value", id=outcomes[1].id)
        assert self._part(worker, chord_id, 1, again) is None

        everything = self._part(worker, chord_id, 2, outcomes[2])
        assert everything is not None
        assert [o.id for o in everything] == [o.id for o in outcomes]

    def test_a_part_may_be_done_before_the_chord_is_complete(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        if not self.has_chords:
            pytest.skip("this backend has no chords")
        chord_id, outcomes = str(uuid.uuid4()), [success(0), success(1)]
        store(client, worker, outcomes[0])
        assert worker.chord_part(chord_id, 0, outcomes[0]) is None

        client.start_chord(chord_id, 2, members(outcomes))

        everything = self._part(worker, chord_id, 1, outcomes[1])
        assert everything is not None
        assert [o.result for o in everything] == [0, 1]

    def test_of_many_threads_exactly_one_gets_the_parts(
        self, make_backend: Callable[..., ResultBackend], client: ResultBackend
    ) -> None:
        chord_id, outcomes = self._start(client, [success(n) for n in range(12)])
        ready = threading.Barrier(4)
        backends = [make_backend() for _ in range(4)]

        def work(number: int) -> list[list[Outcome] | None]:
            ready.wait(PATIENCE_SECONDS)
            return [
                self._part(backends[number], chord_id, index, outcomes[index])
                for index in range(number, 12, 4)
            ]

        with ThreadPoolExecutor(4) as pool:
            got = [part for parts in pool.map(work, range(4)) for part in parts]

        [everything] = [parts for parts in got if parts is not None]
        assert [o.result for o in everything] == list(range(12))

    def test_of_many_processes_exactly_one_gets_the_parts(
        self, spec: BackendSpec, client: ResultBackend
    ) -> None:
        if not self.across_processes:
            pytest.skip("other processes cannot see these results")
        chord_id, outcomes = self._start(client, [success(n) for n in range(9)])
        ids = [outcome.id for outcome in outcomes]

        with (
            process("chord_parts", spec.url, spec.options, chord_id, ids, 0, 3) as one,
            process("chord_parts", spec.url, spec.options, chord_id, ids, 1, 3) as two,
            process("chord_parts", spec.url, spec.options, chord_id, ids, 2, 3) as three,
        ):
            said = sorted(read_line(peer) for peer in (one, two, three))

        assert said == ["[0,1,2,3,4,5,6,7,8]", "null", "null"]

    def test_the_task_that_completed_a_chord_gets_the_parts_again_until_it_is_ended(
        self, client: ResultBackend, worker: ResultBackend, make_backend: Callable[..., ResultBackend]
    ) -> None:
        chord_id, outcomes = self._start(client, [success(0), success(1)])
        assert self._part(worker, chord_id, 0, outcomes[0]) is None
        assert self._part(worker, chord_id, 1, outcomes[1]) is not None  # and here its worker died
        other = make_backend()

        of_another = other.chord_part(chord_id, 0, outcomes[0])
        redelivered = other.chord_part(chord_id, 1, outcomes[1])
        lost = failure(RuntimeError("lost"), id=outcomes[1].id)
        mourned = other.chord_part(chord_id, 1, lost)

        assert of_another is None
        for parts in (redelivered, mourned):
            assert parts is not None
            assert [part.result for part in parts] == [0, 1]

    def test_parts_that_are_counted_many_at_once_are_those_that_come_one_by_one(
        self, client: ResultBackend, worker: ResultBackend, make_backend: Callable[..., ResultBackend]
    ) -> None:
        if not hasattr(worker, "count_parts"):
            return  # its parts come one by one only
        counts = cast("CountsParts", worker)
        first_id, ours = self._start(client, [success(n) for n in range(4)])
        second_id, theirs = self._start(client, [success(7), success(8)])
        chords = ((first_id, ours), (second_id, theirs))
        first, second = (
            [counts.encode_part(chord_id, n, outcome) for n, outcome in enumerate(outcomes)]
            for chord_id, outcomes in chords
        )

        async def count() -> list[list[str]]:
            batches = [first[:2], [first[2], second[0], first[0]], [second[1], second[1], first[2]]]
            return [await counts.count_parts(batch) for batch in batches]

        assert asyncio.run(count()) == [[], [], [theirs[1].id]]
        parts = self._part(make_backend(), second_id, 1, theirs[1])
        assert parts is not None
        assert [part.result for part in parts] == [7, 8]
        client.end_chord(second_id)
        assert self._part(worker, first_id, 3, ours[3]) is not None  # the last one comes alone

        async def again() -> list[list[str]]:
            return [await counts.count_parts(batch) for batch in (second, first[:3], first)]

        # an ended chord, those who have not completed theirs, and the one who has
        assert asyncio.run(again()) == [[], [], [ours[3].id]]

    def test_parts_that_are_counted_many_at_once_may_be_those_that_a_chord_has_grown_by(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        if not hasattr(worker, "count_parts"):
            return  # its parts come one by one only
        counts = cast("CountsParts", worker)
        chord_id, outcomes, added = str(uuid.uuid4()), [success(0), success(1)], success("more")
        worker.grow_chord(chord_id, [added.id])
        parts = [counts.encode_part(chord_id, n, outcome) for n, outcome in enumerate(outcomes)]
        more = counts.encode_part(chord_id, None, added)

        assert asyncio.run(counts.count_parts([parts[0], more])) == []  # before the chord is started
        client.start_chord(chord_id, 2, members(outcomes))
        assert asyncio.run(counts.count_parts([parts[0], more])) == []
        assert asyncio.run(counts.count_parts([more, parts[1]])) == [outcomes[1].id]

        everything = self._part(worker, chord_id, 1, outcomes[1])
        assert everything is not None
        assert [part.result for part in everything] == [0, 1, "more"]

    def test_a_chord_that_is_started_again_keeps_its_parts_and_who_completed_it(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        chord_id, outcomes = self._start(client, [success(0), success(1)])
        self._part(worker, chord_id, 0, outcomes[0])
        client.start_chord(chord_id, 2, members(outcomes))
        assert self._part(worker, chord_id, 1, outcomes[1]) is not None

        client.start_chord(chord_id, 2, members(outcomes))

        assert self._part(worker, chord_id, 0, outcomes[0]) is None

    def test_a_chord_that_grows_waits_for_the_parts_that_were_added(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        chord_id, outcomes = self._start(client, [success(0), success(1)])
        added = [success("one more"), success("and another")]
        ids = [outcome.id for outcome in added]
        assert self._part(worker, chord_id, 0, outcomes[0]) is None

        worker.grow_chord(chord_id, ids[:1])
        client.grow_chord(chord_id, ids)  # by a run of the same part somewhere else

        assert self._part(worker, chord_id, 1, added[0]) is None
        assert self._part(worker, chord_id, 1, added[0]) is None
        assert self._part(worker, chord_id, 1, outcomes[1]) is None
        everything = self._part(worker, chord_id, 1, added[1])
        assert everything is not None
        assert everything[0].result == 0
        assert {part.id for part in everything[1:]} == {outcomes[1].id, *ids}

    def test_a_chord_may_grow_before_it_is_complete_and_no_more_when_all_parts_have_come(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        if not self.has_chords:
            pytest.skip("this backend has no chords")
        chord_id, outcomes, added = str(uuid.uuid4()), [success(0), success(1)], success(2)

        worker.grow_chord(chord_id, [added.id])
        client.start_chord(chord_id, 2, members(outcomes))
        parts = (added, outcomes[0])
        assert [self._part(worker, chord_id, 0, outcome) for outcome in parts] == [None, None]
        assert self._part(worker, chord_id, 1, outcomes[1]) is not None  # here its worker died

        worker.grow_chord(chord_id, [str(uuid.uuid4())])

        assert self._part(worker, chord_id, 1, outcomes[1]) is not None
        worker.end_chord(chord_id)
        assert self._part(worker, chord_id, 1, outcomes[1]) is None

    def test_what_a_header_with_groups_inside_has_grown_by_comes_last(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        if not self.has_chords:
            pytest.skip("this backend has no chords")
        chord_id, outcomes, added = str(uuid.uuid4()), [success(0), success(1), success(2)], success("more")
        one, *others = members(outcomes)
        client.start_chord(chord_id, 3, [[["inner", None], others], one])

        worker.grow_chord(chord_id, [added.id])

        got = [self._part(worker, chord_id, index, outcomes[index]) for index in (1, 0, 2)]
        assert got == [None] * 3
        everything = self._part(worker, chord_id, 0, added)
        assert everything is not None
        assert [part.result for part in everything] == [[1, 2], 0, "more"]

    def test_more_parts_than_fit_one_request(self, client: ResultBackend, worker: ResultBackend) -> None:
        chord_id, outcomes = self._start(client, [success(n) for n in range(250)])

        got = [worker.chord_part(chord_id, index, outcome) for index, outcome in enumerate(outcomes)]

        assert got[:-1] == [None] * 249
        assert got[-1] is not None
        assert [part.result for part in got[-1]] == list(range(250))
        worker.end_chord(chord_id)
        assert worker.chord_part(chord_id, 249, outcomes[249]) is None

    def test_of_the_copies_of_a_message_the_first_that_claims_its_task_is_run(
        self, client: ResultBackend, worker: ResultBackend
    ) -> None:
        if not self.has_chords:
            pytest.skip("this backend has no chords")
        task_id, other_id = str(uuid.uuid4()), str(uuid.uuid4())

        said = [worker.claim(task_id, "first"), client.claim(task_id, "second")]
        redelivered = [client.claim(task_id, "first"), worker.claim(task_id, "second")]

        assert said == redelivered == [True, False]
        assert client.claim(other_id, "second")

    def test_of_many_threads_with_a_copy_each_one_may_run_it(
        self, make_backend: Callable[..., ResultBackend], client: ResultBackend
    ) -> None:
        if not self.has_chords:
            pytest.skip("this backend has no chords")
        task_id = str(uuid.uuid4())
        ready = threading.Barrier(4)
        backends = [make_backend() for _ in range(4)]

        def claim(number: int) -> bool:
            ready.wait(PATIENCE_SECONDS)
            return backends[number].claim(task_id, f"copy {number}")

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(claim, range(4))) == [False, False, False, True]

    def test_an_ended_chord_is_forgotten(self, client: ResultBackend, worker: ResultBackend) -> None:
        chord_id, outcomes = self._start(client, [success(0), success(1)])
        self._part(worker, chord_id, 0, outcomes[0])
        assert self._part(worker, chord_id, 1, outcomes[1]) is not None

        worker.end_chord(chord_id)
        worker.end_chord(chord_id)

        assert self._part(worker, chord_id, 0, outcomes[0]) is None
        assert self._part(worker, chord_id, 1, outcomes[1]) is None

    def test_chords_do_not_mix(self, client: ResultBackend, worker: ResultBackend) -> None:
        first_id, first = self._start(client, [success("a"), success("b")])
        second_id, second = self._start(client, [success("c"), success("d")])
        self._part(worker, first_id, 0, first[0])
        self._part(worker, second_id, 1, second[1])

        everything = self._part(worker, first_id, 1, first[1])

        assert everything is not None
        assert [o.result for o in everything] == ["a", "b"]
        assert self._part(worker, second_id, 0, second[0]) is not None

    def _start(self, client: ResultBackend, outcomes: list[Outcome]) -> tuple[str, list[Outcome]]:
        if not self.has_chords:
            pytest.skip("this backend has no chords")
        chord_id = str(uuid.uuid4())
        client.start_chord(chord_id, len(outcomes), members(outcomes))
        return chord_id, outcomes

    @staticmethod
    def _part(worker: ResultBackend, chord_id: str, index: int, outcome: Outcome) -> list[Outcome] | None:
        """Finish one header task as an executor does: its result first, then its part."""
        worker.store([worker.encode(outcome)])
        return worker.chord_part(chord_id, index, outcome)
