"""What was noted of each workflow, and whether it is what was to happen."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from workflows.model import Node, Verdict, calls_in


class Note(NamedTuple):
    """One thing that has happened in a workflow."""

    what: str  # "ran" or "called"
    label: str
    task_id: str  # of the task that ran, or that called
    copy: str  # the copy of a message that may have been sent twice: its chord, and a word of its own


class Ledger:
    """Reads the notes of all workers as they come.

    Args:
        folder: Where their files are.
    """

    def __init__(self, folder: Path) -> None:
        self.notes: defaultdict[str, Counter[Note]] = defaultdict(Counter)  # by workflow
        self._folder = folder
        self._read: dict[Path, int] = {}

    def update(self) -> None:
        """Read what is new."""
        for path in self._folder.glob("*.notes"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                news = file.read()
            whole = news[: news.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.decode().splitlines():
                key, what, label, task_id, copy = line.split("\t")
                self.notes[key][Note(what, label, task_id, copy)] += 1

    def seen(self, key: str) -> dict[str, Counter[str]]:
        """Return how often what has happened in a workflow, as `workflows.checks.differences` wants it."""
        seen: dict[str, Counter[str]] = {"ran": Counter(), "called": Counter()}
        for note, count in self.notes[key].items():
            seen[note.what][note.label] += count
        return seen


def lost(verdict: Verdict, seen: dict[str, Counter[str]]) -> list[str]:
    """Return the labels of what was to happen and has not, or not as often."""
    expected = {"ran": verdict.ran, "called": verdict.called}
    return [label for what, counter in expected.items() for label in counter - seen[what]]


def doubled(node: Node, verdict: Verdict, notes: Counter[Note], *, late: bool) -> list[str]:
    """Return the labels of what has happened too often, although no kill explains it.

    A task whose worker dies runs again, under its id, and sends again what follows from it, under new ones;
    so where any call of a workflow ran again, its followers may have, too. One that is acknowledged early
    fails when its worker dies, at its very end too, and calls errbacks that were not to be called. Never may
    two copies of one message run: those of the body of a chord, and of its errbacks.
    """
    copies: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    ran: Counter[str] = Counter()
    calls: set[tuple[str, str]] = set()
    for note, count in notes.items():
        if note.what == "ran":
            ran[note.label] += count
        else:
            calls.add((note.label, note.task_id))
        if note.copy:
            occasion = note.copy.rpartition("/")[0]
            copies[note.label, note.what, note.task_id, occasion].add(note.copy)
    found = [label for (label, *_), words in copies.items() if len(words) > 1]
    if not late or ran != verdict.ran or _has_tasks_that_note_nothing(node):
        return found
    return found + list(Counter(label for label, _ in calls) - verdict.called)


def strange(verdict: Verdict, seen: dict[str, Counter[str]]) -> list[str]:
    """Return the labels of what was never to happen."""
    return [
        label
        for what, expected in (("ran", verdict.ran), ("called", verdict.called))
        for label in seen[what]
        if label not in expected
    ]


def _has_tasks_that_note_nothing(node: Node) -> bool:
    return any(call.how == "replace" for call in calls_in(node))
