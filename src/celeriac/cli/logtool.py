"""``celery logtool``: what workers' logs tell of tasks."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TextIO

import click
import msgspec

from celeriac.cli.context import CLIContext

_BEGIN: Final = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[,.]\d+: (?P<level>[A-Z]+)/")
_TASK: Final = r"(?P<name>[^\s\[\]]+)\[(?P<id>[^\]]+)\]"
_RECEIVED: Final = re.compile(rf"Task {_TASK} received|Received task: {_TASK.replace('?P<', '?P<old_')}")
# What comes of a task, and whether that is an end.
_ENDS: Final = {
    "succeeded": True,
    "raised": True,
    "retry": False,
    "ignored": True,
    "reject": True,
    "INTERNAL": True,
}
_ENDED: Final = re.compile(rf"Task {_TASK} (?P<what>{'|'.join(_ENDS)})\b")
_DISCARDED: Final = re.compile(rf"Discarding revoked task: {_TASK}")
_ERRORS: Final = frozenset({"raised", "INTERNAL"})


class Entry(msgspec.Struct, frozen=True):
    """One entry of a log: its first line, and a traceback below it."""

    text: str
    task: tuple[str, str] | None = None  # name and id
    what: str | None = None  # ``received`` or a key of `_ENDS`; None: something else

    @property
    def trace(self) -> bool:
        """Whether there is more than one line."""
        return "\n" in self.text


def entries(lines: Iterable[str]) -> Iterator[Entry]:
    """Yield the entries of a log in the worker's own format, today's or that of old versions.

    Args:
        lines: Of the log; those that begin no entry belong to the one before them.
    """
    gathered: list[str] = []
    for line in lines:
        if _BEGIN.match(line) and gathered:
            yield _entry(gathered)
            gathered = []
        gathered.append(line.rstrip("\n"))
    if gathered:
        yield _entry(gathered)


def _entry(lines: list[str]) -> Entry:
    first, text = lines[0], "\n".join(lines)
    if found := _RECEIVED.search(first):
        return Entry(text, (found["name"] or found["old_name"], found["id"] or found["old_id"]), "received")
    if found := _ENDED.search(first):
        return Entry(text, (found["name"], found["id"]), found["what"])
    if found := _DISCARDED.search(first):
        return Entry(text, (found["name"], found["id"]), "ignored")
    return Entry(text)


class Tally:
    """What logs tell, all together."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}  # of tasks that were received, by id
        self.ends: dict[str, str] = {}  # what came of them in the end, by id
        self.counts: Counter[str] = Counter()  # of what was told

    def add(self, entry: Entry) -> None:
        """Take an entry in."""
        if entry.task is None or entry.what is None:
            return
        name, task_id = entry.task
        self.counts[entry.what] += 1
        if entry.what == "received":
            self.names.setdefault(task_id, name)
        elif _ENDS[entry.what]:
            self.ends[task_id] = entry.what

    def incomplete(self) -> dict[str, str]:
        """Return the names of tasks that were received and came to no end, by id."""
        return {task_id: name for task_id, name in self.names.items() if task_id not in self.ends}


@click.group("logtool")
def command() -> None:
    """Read workers' logs; from standard input where no file is named."""


_files = click.argument("files", nargs=-1, type=click.File("r", errors="replace"))


@command.command("stats")
@_files
@click.pass_obj
def stats(obj: CLIContext, files: tuple[TextIO, ...]) -> None:
    """Count tasks: received, succeeded, failed, retried, and by name."""
    tally = _read(files)
    errors = sum(1 for end in tally.ends.values() if end in _ERRORS)
    rows = {
        "Task total": len(tally.names),
        "Task errors": errors,
        "Task retries": tally.counts["retry"],
        "Task success": sum(1 for end in tally.ends.values() if end == "succeeded"),
        "Task completed": len(tally.ends),
        "Task incomplete": len(tally.incomplete()),
    }
    obj.echo("Report\n======\n")
    for title, count in rows.items():
        obj.echo(f"{title}: {count}")
    obj.echo("\nTasks\n=====\n")
    for name, count in sorted(Counter(tally.names.values()).items()):
        obj.echo(f"{name}: {count}")


@command.command("traces")
@_files
@click.pass_obj
def traces(obj: CLIContext, files: tuple[TextIO, ...]) -> None:
    """Show every entry with a traceback."""

    def see(entry: Entry) -> None:
        if entry.trace:
            obj.echo(entry.text)

    _read(files, see)


@command.command("errors")
@_files
@click.pass_obj
def errors(obj: CLIContext, files: tuple[TextIO, ...]) -> None:
    """Show the line of every task that has failed."""

    def see(entry: Entry) -> None:
        if entry.what in _ERRORS:
            obj.echo(entry.text.split("\n", 1)[0])

    _read(files, see)


@command.command("incomplete")
@_files
@click.pass_obj
def incomplete(obj: CLIContext, files: tuple[TextIO, ...]) -> None:
    """Show the tasks that were received and came to no end."""
    for task_id, name in _read(files).incomplete().items():
        obj.echo(f"{name}[{task_id}]: did not complete")


@command.command("debug")
@_files
@click.pass_obj
def debug(obj: CLIContext, files: tuple[TextIO, ...]) -> None:
    """Show all that tells of no task."""

    def see(entry: Entry) -> None:
        if entry.task is None:
            obj.echo(entry.text)

    _read(files, see)


def _read(files: tuple[TextIO, ...], see: Callable[[Entry], None] = lambda _: None) -> Tally:
    """Show every entry of some logs and return what they tell all together."""
    tally = Tally()
    for file in files or (sys.stdin,):
        for entry in entries(file):
            tally.add(entry)
            see(entry)
    return tally
