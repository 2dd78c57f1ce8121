"""What a node remembers of revocations."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.message import TaskHeaders
from celeriac.node.revoked import Revoked
from celeriac.revocations import Remembered, Revocation, of_stamps, of_tasks


def headers(id_: str = "a", **stamps: Any) -> TaskHeaders:
    return TaskHeaders(task="t", id=id_, stamps=stamps or None)


def test_a_task_is_covered_by_its_id() -> None:
    revoked = Revoked()
    assert not revoked

    revoked.add(of_tasks(["a", "b"]))

    assert revoked
    assert revoked.covers(headers("a"))
    assert not revoked.covers(headers("c"))
    assert revoked.ids() == ["a", "b"]


@pytest.mark.parametrize("stamp", ["acme", ["x", "acme"]])
@pytest.mark.parametrize("said", ["acme", ["acme", "b"]])
def test_or_by_one_of_its_stamps(stamp: Any, said: Any) -> None:
    revoked = Revoked()

    revoked.add(of_stamps({"customer": said}))

    assert revoked.covers(headers(customer=stamp))
    assert not revoked.covers(headers(customer="other"))
    assert not revoked.covers(headers(tenant="acme"))
    assert not revoked.covers(headers())


def test_the_oldest_ids_are_forgotten_when_there_are_too_many() -> None:
    revoked = Revoked(most=2)

    revoked.add(of_tasks(["a", "b", "a", "c"]))

    assert revoked.ids() == ["a", "c"]


def test_an_id_is_forgotten_after_its_time() -> None:
    revoked = Revoked(kept_seconds=0.0)

    revoked.add(of_tasks(["a"]))

    assert not revoked.covers(headers("a"))
    assert revoked.ids() == []


def test_nodes_tell_each_other() -> None:
    one, other = Revoked(), Revoked()
    one.add(of_tasks(["a"]))

    other.merge(one.with_times())

    assert other.ids() == ["a"]
    [[said, task_id]] = other.with_times().values()
    assert isinstance(said, float)
    assert task_id == "a"


def test_stamps_are_bounded_too() -> None:
    revoked = Revoked(most=2)

    revoked.add(of_stamps({"customer": ["a", "b", "c"]}))

    assert not revoked.covers(headers(customer="a"))
    assert revoked.covers(headers(customer="b"))
    assert revoked.covers(headers(customer="c"))


def test_an_end_is_new_once_whether_it_was_heard_or_read() -> None:
    revoked = Revoked()
    revoked.add(of_tasks(["a"]))  # before somebody wanted it to end
    revoked.add(of_tasks(["b"], "SIGTERM"))
    kept = [
        Remembered(each, 1.0)
        for each in (*of_tasks(["a", "b"], "SIGTERM"), *of_stamps({"customer": "acme"}, "SIGTERM"))
    ]

    assert revoked.remember(kept) == [
        Revocation("a", signal="SIGTERM"),
        Revocation('"acme"', "customer"),
        Revocation('"acme"', "customer", "SIGTERM"),
    ]
    assert revoked.remember(kept) == []
    assert revoked.remember([Remembered(Revocation("b", signal="SIGKILL"), 1.0)]) == [
        Revocation("b", signal="SIGKILL")
    ]


def test_what_is_to_end_is_bounded_and_covers_nothing_by_itself() -> None:
    revoked = Revoked(most=2)
    ends = [Revocation(task_id, signal="SIGTERM") for task_id in "abc"]

    revoked.add(ends)

    assert not revoked.covers(headers("c"))
    assert revoked.remembered() == []
    assert revoked.remember([Remembered(each, 1.0) for each in ends]) == [ends[0]]


def test_what_is_remembered_keeps_its_age_and_what_is_too_old_is_left_out() -> None:
    revoked = Revoked(kept_seconds=100.0)
    revoked.add(of_tasks(["known"]))

    new = revoked.remember(
        [
            Remembered(Revocation("old"), 101.0),
            Remembered(Revocation("known"), 50.0),
            Remembered(Revocation("young"), 99.0),
            Remembered(Revocation('"acme"', "customer"), 1.0),
        ]
    )

    assert new == [Revocation("young"), Revocation('"acme"', "customer")]
    assert revoked.ids() == ["known", "young"]
    ages = {kept.revocation.value: kept.age_seconds for kept in revoked.remembered()}
    assert ages["known"] < 50.0 < 99.0 <= ages["young"]
    assert Revoked().remember(revoked.remembered()) == [each.revocation for each in revoked.remembered()]
