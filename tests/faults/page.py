"""The page about the fault table: `docs/reliability.md`, written from a run of it. Pure."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence

from faults.checker import Promise
from faults.play import Played
from faults.table import ROWS, Row

_WORDS: dict[tuple[bool, str], str] = {
    (False, "never"): "once",
    (True, "never"): "at least once; a second run is told that it is one",
    (False, "told"): "at most once; a run that died is told as a failure",
    (True, "told"): "a run that died is told as a failure; what had begun milliseconds before may run again",
    (True, "silently"): "a run that died is gone; what had begun milliseconds before may run again",
}

_HEAD = """# What was broken, and what held

Written by `make faults`: the table of `tests/faults/table.py` in {runs:,} runs with {calls:,} calls, on
Python {python} and {system}.

Every call and every run of a task is written to a ledger on the disk, outside of the system, before the
system goes on. In the end a checker reads it: was a call lost that `delay()` had confirmed; did one run that
nobody had sent, or twice where it must not, or without being told that it is the second time; is a message
left at the broker though its task is done; did a result change after it was told; is something stuck?

*Early* is Celery's default, acknowledged when the task begins; *late* is `acks_late=True` with
`reject_on_worker_lost=True`. *Repeats* are second runs that the promise allows. *Back after* is the slowest
time from the end of the fault to the end of a task that was sent then, on a busy machine. *Runs*: how many,
in how many of the combinations of broker, pool and acknowledgement that the row has.

| | fault | on | runs | early | late | repeats | back after | broken |
|---|---|---|---|---|---|---|---|---|
"""


def written(played: Sequence[Played]) -> str:
    """Return the page."""
    head = _HEAD.format(
        runs=len(played),
        calls=sum(one.calls for one in played),
        python=platform.python_version(),
        system=platform.system(),
    )
    lines = [_line(row, [one for one in played if one.case.row is row]) for row in ROWS]
    return head + "".join(lines) + _red(played)


def _line(row: Row, played: Sequence[Played]) -> str:
    if not played:
        return ""
    repeats = sum(len(one.findings.repeated) for one in played)
    broken = sum(bool(one.problems) for one in played)
    times = [one.resumed_seconds for one in played if one.resumed_seconds is not None]
    ran = {(one.case.kind, one.case.pool, one.case.ack) for one in played}
    cells = [
        row.number,
        row.title,
        f"{_names(row.kinds)}; {_names(row.pools)}",
        f"{len(played)} in {len(ran)} of {len(row.kinds) * len(row.pools) * 2}",
        _early(row),
        "told, kept as a dead letter" if row.poison else _words(row.late) + _apart(row),
        f"{repeats or ''}",
        f"{max(times):.1f} s" if times else "",
        f"**{broken}**" if broken else "0",
    ]
    return f"| {' | '.join(cells)} |\n"


def _early(row: Row) -> str:
    if row.poison:
        return "told, kept as a dead letter"
    words = _words(row.early) + _apart(row)
    rabbit = row.on_rabbitmq
    return words if rabbit is None or rabbit == row.early else f"{words} (RabbitMQ: {_words(rabbit)})"


def _apart(row: Row) -> str:
    return "".join(f" ({how}: {_words(promise)})" for how, promise in row.apart.items())


def _words(promise: Promise) -> str:
    return _WORDS[promise.repeats, promise.dies]


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)


def _red(played: Sequence[Played]) -> str:
    bad = [one for one in played if one.problems]
    if not bad:
        return ""
    lines = [f"- `{one.case}`: {one.problems[0].splitlines()[0][:200]}\n" for one in bad]
    return "\n## Broken\n\n" + "".join(lines)
