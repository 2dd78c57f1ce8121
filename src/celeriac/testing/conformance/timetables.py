"""The obligations of `celeriac.timetable.Timetable`, as tests that every store of timetables passes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest

from celeriac.timetable import NOBODY, Timetable

__all__ = ["TimetableConformance"]

Open = Callable[[str], Timetable]


class TimetableConformance:
    """Derive from it and override `open_timetable`."""

    @pytest.fixture
    def open_timetable(self) -> Open:
        """Return what opens the timetable of an owner, each time anew; override it."""
        raise NotImplementedError

    @pytest.fixture
    def owner(self) -> str:
        """Return the name of an app that no other test has."""
        return f"shop {uuid.uuid4().hex}/celery"

    @pytest.fixture
    def another(self, open_timetable: Open, owner: str) -> Iterator[Callable[[], Timetable]]:
        """Return what opens the test's timetable once more."""
        with ExitStack() as stack:
            yield lambda: stack.enter_context(closing(open_timetable(owner)))

    @pytest.fixture
    def timetable(self, another: Callable[[], Timetable]) -> Timetable:
        """Return the test's timetable."""
        return another()

    def test_nobody_leads_at_first_and_nothing_is_written(self, timetable: Timetable) -> None:
        lead, changes = timetable.lead(), timetable.changes(0)

        assert (lead.holder, lead.term) == (NOBODY, 0)
        assert (changes.revision, changes.lines) == (0, {})

    def test_one_takes_the_lead_and_keeps_it_term_after_term(
        self, timetable: Timetable, another: Callable[[], Timetable]
    ) -> None:
        other = another()
        assert timetable.take("1@here", 0, 1.5)

        assert timetable.take("1@here", 1, 2.5)
        assert not other.take("2@there", 0, 3.0)
        assert not other.take("2@there", 1, 3.0)
        lead = timetable.lead()
        assert (lead.holder, lead.term) == ("1@here", 2)
        assert other.lead().holder not in {NOBODY, "2@there"}

    def test_the_lead_can_be_given_back(self, timetable: Timetable, another: Callable[[], Timetable]) -> None:
        timetable.take("1@here", 0, 1.0)
        assert timetable.take(NOBODY, 1, 1.0)

        other = another()
        lead = other.lead()
        assert lead.holder == NOBODY
        assert other.take("2@there", lead.term, 2.0)

    def test_only_one_of_many_that_ask_at_once_leads(
        self, timetable: Timetable, another: Callable[[], Timetable]
    ) -> None:
        timetable.lead()
        many = [another() for _ in range(4)]

        with ThreadPoolExecutor(4) as threads:
            took = list(threads.map(lambda at: many[at].take(f"{at}@here", 0, 1.0), range(4)))

        assert took.count(True) == 1

    def test_who_leads_writes_and_others_see_what_is_new(
        self, timetable: Timetable, another: Callable[[], Timetable]
    ) -> None:
        timetable.take("1@here", 0, 1.0)
        assert timetable.write({"run/a": b"1", "run/é": b"\x00-+\xff"}, 1)
        first = another().changes(0)
        assert timetable.write({"run/a": b"2"}, 1)
        second = another().changes(first.revision)

        assert {key: line.value for key, line in first.lines.items()} == {
            "run/a": b"1",
            "run/é": b"\x00-+\xff",
        }
        assert {key: line.value for key, line in second.lines.items()} == {"run/a": b"2"}
        assert second.revision > first.revision
        assert not another().changes(second.revision).lines

    def test_what_was_removed_is_gone(self, timetable: Timetable, another: Callable[[], Timetable]) -> None:
        timetable.take("1@here", 0, 1.0)
        timetable.write({"run/a": b"1", "run/b": b"1"}, 1)

        timetable.write({"run/a": None}, 1)

        lines = another().changes(0).lines
        assert {key: line.value for key, line in lines.items() if line.value is not None} == {"run/b": b"1"}

    def test_who_does_not_lead_any_more_writes_nothing(
        self, timetable: Timetable, another: Callable[[], Timetable]
    ) -> None:
        timetable.take("1@here", 0, 1.0)
        timetable.write({"run/a": b"1"}, 1)
        timetable.take(NOBODY, 1, 1.0)
        other = another()
        term = other.lead().term
        other.take("2@there", term, 1.0)

        assert not timetable.write({"run/a": b"old", "run/b": b"old"}, 1)

        assert [line.value for line in other.changes(0).lines.values()] == [b"1"]

    def test_what_was_written_outlives_who_wrote_it(
        self, timetable: Timetable, another: Callable[[], Timetable]
    ) -> None:
        timetable.take("1@here", 0, 1.0)
        timetable.write({f"run/{number}": str(number).encode() for number in range(300)}, 1)
        timetable.close()

        other = another()
        other.take("2@there", other.lead().term, 1.0)
        assert len(other.changes(0).lines) == 300

    def test_others_timetables_are_apart(self, timetable: Timetable, open_timetable: Open) -> None:
        timetable.take("1@here", 0, 1.0)
        timetable.write({"run/a": b"1"}, 1)

        with closing(open_timetable(f"another {uuid.uuid4().hex}/celery")) as other:
            assert other.lead().holder == NOBODY
            assert not other.changes(0).lines

    def test_a_line_is_edited_by_whoever_has_seen_it_last(
        self, timetable: Timetable, another: Callable[[], Timetable]
    ) -> None:
        other = another()
        assert timetable.edit("plan/a", b"1", 0)
        assert not other.edit("plan/a", b"late", 0)
        seen = other.changes(0).lines["plan/a"]
        assert seen.value == b"1"

        assert other.edit("plan/a", b"2", seen.revision)
        assert not timetable.edit("plan/a", None, seen.revision)
        assert timetable.edit("plan/a", None, timetable.changes(0).lines["plan/a"].revision)
        assert timetable.changes(0).lines["plan/a"].value is None

    def test_an_edit_is_a_change_for_who_leads(
        self, timetable: Timetable, another: Callable[[], Timetable]
    ) -> None:
        timetable.take("1@here", 0, 1.0)
        timetable.write({"run/a": b"1"}, 1)
        known = timetable.changes(0).revision

        another().edit("plan/a", b"x", 0)

        changes = timetable.changes(known)
        assert {key: line.value for key, line in changes.lines.items()} == {"plan/a": b"x"}
        assert timetable.write({"run/a": b"2"}, 1)

    def test_what_was_edited_while_nobody_led_is_known_to_who_leads_then(
        self, timetable: Timetable, another: Callable[[], Timetable]
    ) -> None:
        timetable.take("1@here", 0, 1.0)
        timetable.write({"run/a": b"1"}, 1)
        timetable.take(NOBODY, 1, 1.0)
        timetable.edit("plan/a", b"x", 0)

        other = another()
        other.take("2@there", other.lead().term, 1.0)

        lines = other.changes(0).lines
        assert {key: line.value for key, line in lines.items()} == {"run/a": b"1", "plan/a": b"x"}

    def test_who_leads_sees_what_was_removed(
        self, timetable: Timetable, another: Callable[[], Timetable]
    ) -> None:
        other = another()
        other.edit("plan/a", b"x", 0)
        timetable.take("1@here", timetable.lead().term, 1.0)
        known = timetable.changes(0)

        assert other.edit("plan/a", None, known.lines["plan/a"].revision)

        assert [line.value for line in timetable.changes(known.revision).lines.values()] == [None]

    def test_of_those_who_edit_a_line_at_once_one_is_first(
        self, timetable: Timetable, another: Callable[[], Timetable]
    ) -> None:
        timetable.take("1@here", timetable.lead().term, 1.0)

        def add_two(other: Timetable) -> None:
            added = 0
            while added < 2:
                line = other.changes(0).lines.get("plan/sum")
                value, revision = (b"0", 0) if line is None else (line.value or b"0", line.revision)
                added += other.edit("plan/sum", str(int(value) + 1).encode(), revision)

        with ThreadPoolExecutor(3) as threads:
            list(threads.map(add_two, [another() for _ in range(3)]))

        assert timetable.changes(0).lines["plan/sum"].value == b"6"
