"""Runs one case of the fault table: a system at work, a fault, and what the ledger says in the end."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from faults.brokers import Broker, Servers
from faults.checker import Findings, Promise, judge
from faults.field import Field
from faults.ledger import Entry
from faults.table import Case
from faults.wall_clock import WallClock

BEFORE = 5  # short tasks that have run before the fault strikes


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a case.

    Attributes:
        case: Which.
        findings: Of all calls but poison.
        problems: What did not hold, for people; nothing when all was well.
        seconds: How long it took.
        resumed_seconds: How soon a new task had run after the fault, where that is measured.
        calls: How many were sent.
        story: Of the calls that went wrong, their lines of the ledger and the workers' last words.
    """

    case: Case
    findings: Findings
    problems: tuple[str, ...]
    seconds: float
    resumed_seconds: float | None = None
    calls: int = 0
    story: str = ""


def play(case: Case, servers: Servers, folder: Path) -> Played:
    """Run a case.

    Args:
        case: Which.
        servers: To run it on; no other case uses them meanwhile.
        folder: An empty folder, for everything that it writes.
    """
    began = time.monotonic()
    row = case.row
    name = "broker.test" if "FAULTS_HOSTS" in row.environment else None
    if name:
        (folder / "hosts").write_text("127.0.0.1")
    broker = Broker(case.kind, servers, folder, results_elsewhere=row.results_elsewhere, name=name)
    field = Field(
        broker,
        folder,
        pool=case.pool,
        late=case.ack == "late",
        seed=case.seed,
        settings=row.settings,
        clock=WallClock(folder) if row.false_clock else None,
    )
    field.environment.update(row.environment)
    promise = row.promise(case.kind, case.ack)
    problems: list[str] = []
    left: set[str] = set()
    with contextlib.closing(field):
        try:
            poison = _strike(field, case)
            left = field.see_through(silent_deaths=promise.dies == "silently")
            problems += _burials(field, poison)
        except AssertionError as exc:
            problems.append(str(exc))
        entries = list(field.entries())
        words = field.last_words()
    findings = _judged(entries, promise, case, left)
    early = [e.key for e in entries if e.what == "start" and e.key.startswith("due@") and e.at < _due(e)]
    problems += [f"early: {key}" for key in early]
    problems += [f"{name}: {', '.join(found)}" for name, found in findings.broken.items()]
    return Played(
        case,
        findings,
        tuple(problems),
        time.monotonic() - began,
        field.resumed_seconds,
        sum(entry.what == "intent" for entry in entries),
        _story(entries, findings, words) if problems else "",
    )


def _strike(field: Field, case: Case) -> list[str]:
    """Have the system work, break and mend it; return the poison that was sent."""
    row = case.row
    field.start_worker(*row.options)
    held = field.send("hold") if row.held else []
    field.wait_for("start", held)
    for _ in range(row.nodes - 1):
        field.start_worker(*row.options, direct=True)
    poison = [key for how in row.poison for key in field.send(how)]
    for how, count in row.load:
        field.send(how, count)
    with field.stream():
        if not (row.held and row.nodes == 1 and case.pool == "solo"):  # else the held one is in the way
            field.wait_for("end", BEFORE)
        else:
            field.wait_for("confirmed", BEFORE)
            if row.strike.__name__ in _NEEDS_ROOM:
                field.release()
        row.strike(field)
    field.release()
    if row.resumes:
        field.probe()
    return poison


# Strikes that wait for other tasks to run, which one slot cannot while a task is held.
_NEEDS_ROOM = frozenset({"nothing", "slices", "deploy", "break_at_steps", "send_rubbish"})


def _burials(field: Field, poison: Sequence[str]) -> list[str]:
    """Return which poison was not kept as a dead letter, once each."""
    kept = [letter.envelope.headers.get("id") for letter in field.letters()] if poison else []
    return [f"{key}: {kept.count(key)} dead letters" for key in poison if kept.count(key) != 1]


def _judged(entries: Sequence[Entry], promise: Promise, case: Case, left: set[str]) -> Findings:
    """Judge apart what has promises of its own, and poison: it is told, and never done."""
    promises = dict(case.row.apart)
    promises |= dict.fromkeys(case.row.poison, Promise(repeats=case.ack == "late", dies="told"))
    good = [entry for entry in entries if _how(entry.key) not in promises]
    findings = judge(good, promise, {key for key in left if _how(key) not in promises})
    for how, its_promise in promises.items():
        mine = [entry for entry in entries if _how(entry.key) == how]
        kept = set() if how in case.row.poison else {key for key in left if _how(key) == how}
        broken = judge(mine, its_promise, kept).broken
        findings = replace(findings, **{n: getattr(findings, n) + found for n, found in broken.items()})
    return findings


def _how(key: str) -> str:
    """Return what a call does, of which its id begins, behind the moment of one that has to wait."""
    return re.sub(r"-\d+-.*", "", key.rpartition("@")[2], flags=re.DOTALL)


def _due(start: Entry) -> float:
    """Return the moment before which a run may not begin; the two clocks drift apart."""
    return float(start.key.split("@")[1]) - 0.1


def _story(entries: Sequence[Entry], findings: Findings, words: str) -> str:
    wrong = {key for found in findings.broken.values() for key in found[:3]}
    lines = [f"{e.at:.3f} {e.what} {e.key} pid {e.pid} {'redelivered ' if e.redelivered else ''}{e.state}"
             for e in entries if e.key in wrong]  # fmt: skip
    return "\n".join([*lines, words])
