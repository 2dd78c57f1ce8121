"""What the checker finds in a ledger."""

from __future__ import annotations

import pytest

from faults.checker import Findings, Promise, judge, undecided
from faults.ledger import Entry, What

LATE = Promise(repeats=True)
EARLY = Promise(dies="told")
SILENT = Promise(dies="silently")


def story(*words: str) -> list[Entry]:
    """Return the entries of one call: ``again`` is a start that is told to be a redelivery."""
    entries = []
    for at, word in enumerate(words):
        what, _, state = word.partition(":")
        again = what == "again"
        kind: What = "start" if again else what  # type: ignore[assignment] # words are names of entries
        entries.append(Entry(kind, "a", float(at), redelivered=again, state=state))
    return entries


SENT = ("intent", "confirmed")
DONE = ("start", "end", "told:SUCCESS")


@pytest.mark.parametrize(
    ("promise", "words", "left", "wrong"),
    [
        (EARLY, (*SENT, *DONE), False, ""),
        (LATE, (*SENT, *DONE), False, ""),
        (EARLY, SENT, False, "lost"),
        (LATE, (*SENT, "start"), False, "lost"),
        (EARLY, (*SENT, "start"), False, "lost"),
        (EARLY, (*SENT, "start", "told:FAILURE"), False, ""),
        (LATE, (*SENT, "start", "told:FAILURE"), False, "lost"),
        (SILENT, (*SENT, "start"), False, ""),
        (SILENT, SENT, False, "lost"),
        (SILENT, (*SENT, "start", "end"), False, ""),
        (EARLY, SENT, True, "stuck"),
        (EARLY, ("intent", "refused"), False, ""),
        (EARLY, ("intent", "refused", *DONE), False, ""),
        (EARLY, ("intent", "refused", "intent", "confirmed", *DONE, "start", "end"), False, ""),
        (
            EARLY,
            ("intent", "refused", "intent", "confirmed", *DONE, *DONE, *DONE),
            False,
            "duplicated hidden",
        ),
        (EARLY, DONE, False, "unexpected"),
        (EARLY, (*SENT, "told:SUCCESS"), False, "unexpected"),
        (EARLY, (), True, "unexpected"),
        (EARLY, (*SENT, *DONE, "again", "end"), False, "duplicated"),
        (LATE, (*SENT, "start", "again", "end", "told:SUCCESS"), False, ""),
        (LATE, (*SENT, "start", "start", "end", "told:SUCCESS"), False, "hidden"),
        (LATE, (*SENT, *DONE), True, "resurrected"),
        (EARLY, (*SENT, "told:FAILURE", "start", "end"), False, "resurrected"),
        (EARLY, (*SENT, "start", "end", "told:FAILURE", "told:SUCCESS"), False, "changed"),
        (LATE, (*SENT, "start", "end"), False, "untold"),
    ],
)
def test_a_story_breaks_a_promise(promise: Promise, words: tuple[str, ...], left: bool, wrong: str) -> None:
    found = judge(story(*words), promise, {"a"} if left else ())

    assert set(found.broken) == set(wrong.split())


def test_what_the_promise_allows_is_counted_all_the_same() -> None:
    found = judge(story(*SENT, "start", "again", "end", "told:SUCCESS"), LATE)

    assert found == Findings(repeated=("a",))
    assert str(found) == "repeated 1 (a)"


def test_a_call_is_undecided_until_it_is_done_or_told() -> None:
    assert undecided(story(*SENT, "start")) == {"a"}
    assert undecided(story(*SENT, "start", "end")) == set()
    assert undecided(story("intent", "refused")) == set()
