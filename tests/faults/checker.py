"""What a ledger says about the promises: which calls were lost, doubled, or worse.

Pure: entries and a promise in, findings out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields
from typing import Literal

from faults.ledger import Entry

SUCCESS = "SUCCESS"
REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True)
class Promise:
    """What may become of a call.

    Attributes:
        repeats: A run may be followed by another one, which is told that its message was delivered before.
        dies: What may become of a call whose run has begun and is not done. ``never``: another run is done;
            ``told``: the client is told a failure; ``silently``: nobody knows.
        results: Clients wait for results: what was done has to be told.
        changes: A run that goes on although it was revoked may replace REVOKED by what comes of it.
        grace_seconds: How long after a client was told may a run show that had begun before, for its worker.
    """

    repeats: bool = False
    dies: Literal["never", "told", "silently"] = "never"
    results: bool = True
    changes: bool = False
    grace_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Findings:
    """Which calls went wrong, by how; each is empty when the promise was kept.

    Attributes:
        lost: Confirmed, never done, nobody was told, and the broker has it no more.
        stuck: Confirmed, never done, nobody was told, and the broker still has it.
        unexpected: It ran, or has a result, and nobody has sent it or it never ran.
        duplicated: It began more often than it was sent, which the promise excludes.
        hidden: It began again and was not told that its message was delivered before.
        resurrected: It began after a client was told that it was lost, or its message is still at the broker
            though it is done.
        changed: Clients were told two different final states.
        untold: It is done and nobody was told.
        repeated: It began more often than it was sent, as the promise allows: a number to know, no fault.
        died: It began, was never done, and the promise allows that: to know, too.
    """

    lost: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    duplicated: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    resurrected: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    died: tuple[str, ...] = ()

    @property
    def broken(self) -> dict[str, tuple[str, ...]]:
        """The findings that break the promise, by name."""
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: found for name, found in named.items() if found and name not in ("repeated", "died")}

    def __str__(self) -> str:
        """Show every number that is not zero, with some of the calls."""
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        shown = [f"{name} {len(found)} ({', '.join(found[:5])})" for name, found in named.items() if found]
        return "; ".join(shown) or "nothing to tell"


@dataclass(slots=True)
class _Story:
    """What is known of one call."""

    intents: int = 0
    confirmed: int = 0
    starts: list[Entry] = field(default_factory=list)
    ends: list[Entry] = field(default_factory=list)
    told: list[Entry] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether it is done, or a client knows that it never will be."""
        return bool(self.ends or self.told)

    def resurrected(self, grace_seconds: float) -> bool:
        """Return whether it began so long after a client was told of a failure."""
        failures = [entry.at + grace_seconds for entry in self.told if entry.state != SUCCESS]
        return bool(failures) and any(start.at > min(failures) for start in self.starts)


def judge(entries: Iterable[Entry], promise: Promise, left: Collection[str] = ()) -> Findings:
    """Return what a ledger says of a promise.

    Args:
        entries: All lines, after the system has had the time to finish everything.
        promise: What was promised.
        left: The calls whose messages are still at the broker.
    """
    stories = _stories(entries)
    found: defaultdict[str, list[str]] = defaultdict(list)
    for key, story in stories.items():
        for name in _wrongs(story, promise, key in left):
            found[name].append(key)
    found["unexpected"] += sorted(set(left) - stories.keys())
    return Findings(**{name: tuple(names) for name, names in found.items()})


def undecided(entries: Iterable[Entry]) -> set[str]:
    """Return the confirmed calls that are neither done nor told."""
    return {key for key, story in _stories(entries).items() if story.confirmed and not story.settled}


def _stories(entries: Iterable[Entry]) -> dict[str, _Story]:
    stories: defaultdict[str, _Story] = defaultdict(_Story)
    for entry in entries:
        match entry.what:
            case "intent":
                stories[entry.key].intents += 1
            case "confirmed":
                stories[entry.key].confirmed += 1
            case "start":
                stories[entry.key].starts.append(entry)
            case "end":
                stories[entry.key].ends.append(entry)
            case "told":
                stories[entry.key].told.append(entry)
    return dict(stories)


def _wrongs(story: _Story, promise: Promise, is_left: bool) -> list[str]:
    """Return the names of the findings that a call belongs to."""
    again = len(story.starts) > story.intents > 0
    plain = sum(not start.redelivered for start in story.starts)
    states = {entry.state for entry in story.told}
    done = story.confirmed > 0 and bool(story.ends)
    missing = story.confirmed > 0 and not story.ends
    excused = (
        bool(story.told) if promise.dies == "told" else bool(story.starts and promise.dies == "silently")
    )
    checks = {
        "lost": missing and not excused and not is_left,
        "stuck": missing and not excused and is_left,
        "unexpected": (not story.intents and bool(story.starts or story.told))
        or (SUCCESS in states and not story.ends),
        "duplicated": again and not promise.repeats,
        "hidden": story.intents > 0 and plain > story.intents,
        "resurrected": story.resurrected(promise.grace_seconds) or (is_left and bool(story.ends)),
        "changed": len(states - {REVOKED} if promise.changes else states) > 1,
        "untold": promise.results and promise.dies != "silently" and done and not story.told,
        "repeated": again and promise.repeats,
        "died": missing and excused and bool(story.starts),
    }
    return [name for name, wrong in checks.items() if wrong]
