"""The count of votes in an election among workers."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.control.election import Elected, Elections


def stands(node: str, clock: int, action: Any = None) -> dict[str, Any]:
    return {"id": "e", "clock": clock, "hostname": node, "pid": 7, "topic": "task", "action": action}


def heard(node: str) -> dict[str, Any]:
    return {"id": "e", "hostname": node}


def test_the_lowest_clock_wins_once_all_have_heard_of_somebody() -> None:
    elections = Elections("a")
    assert elections.call("e")
    elections.stand(stands("a", 5, "mine"))
    assert elections.hear(heard("a"), ["b"]) is None
    elections.stand(stands("b", 4, "theirs"))

    assert elections.hear(heard("b"), ["b"]) == Elected("b.7", "task", "theirs")


def test_of_two_with_the_same_clock_the_first_by_name_wins() -> None:
    elections = Elections("b")
    elections.call("e")
    for node in ("b", "a"):
        elections.stand(stands(node, 4))

    assert elections.hear(heard("b"), []) == Elected("a.7", "task", None)


def test_an_election_is_decided_once_and_stood_for_once() -> None:
    elections = Elections("a")
    elections.call("e")
    elections.stand(stands("a", 1))
    assert elections.hear(heard("a"), []) is not None

    elections.stand(stands("b", 0))
    assert elections.hear(heard("b"), []) is None
    assert not elections.call("e")


def test_who_was_not_called_decides_nothing() -> None:
    elections = Elections("a")
    elections.stand(stands("b", 1))

    assert elections.hear(heard("b"), []) is None
    assert elections.call("e")
    assert not elections.call("e")


@pytest.mark.parametrize("lacks", ["id", "clock", "hostname", "pid", "topic", "action"])
def test_what_is_no_candidate_is_refused(lacks: str) -> None:
    event = stands("b", 1)
    del event[lacks]

    with pytest.raises(KeyError):
        Elections("a").stand(event)


def test_elections_that_come_to_no_end_are_forgotten() -> None:
    elections = Elections("a")
    for number in range(10_000):
        elections.call(f"e{number}")

    assert len(elections._open) <= 100
