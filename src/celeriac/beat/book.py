"""What a leading scheduler knows of its timetable, and what it has still to write there."""

from __future__ import annotations

import logging

from celeriac.errors import DecodeError
from celeriac.remote.plan import Plan, Run, decode, encode, key_of
from celeriac.timetable import Line, Timetable

__all__ = ["Book"]

logger: logging.Logger = logging.getLogger("celery.beat")


class Book:
    """Plans and runs by the names of entries.

    Args:
        timetable: Where they are kept.
    """

    def __init__(self, timetable: Timetable) -> None:
        self.plans: dict[str, Plan] = {}
        self.runs: dict[str, Run] = {}
        self._timetable = timetable
        self._names: dict[str, str] = {}  # of entries, by the keys of their plans
        self._revision = 0
        self._unwritten: dict[str, bytes | None] = {}

    def read(self) -> None:
        """Read everything anew; what has not been written is forgotten."""
        changes = self._timetable.changes(0)
        self.plans, self.runs, self._names, self._unwritten = {}, {}, {}, {}
        for key, line in changes.lines.items():
            self._take_in(key, line)
        self._revision = changes.revision

    def heed(self) -> set[str]:
        """Read which plans have changed since, and return the names of their entries."""
        changes = self._timetable.changes(self._revision)
        self._revision = changes.revision
        names = {self._take_in(key, line) for key, line in changes.lines.items() if key.startswith("plan/")}
        return {name for name in names if name is not None}

    def note(self, run: Run) -> None:
        """Note a run, to be written by the next `write`."""
        if self.runs.get(run.name) != run:
            self.runs[run.name] = run
            self._unwritten[key_of("run", run.name)] = encode(run)

    def written(self, run: Run) -> None:
        """Take in a run that was written by other means."""
        self.runs[run.name] = run
        self._unwritten.pop(key_of("run", run.name), None)

    def forget(self, name: str) -> None:
        """Note that there is no such entry."""
        if self.runs.pop(name, None) is not None:
            self._unwritten[key_of("run", name)] = None

    def write(self, term: int) -> bool:
        """Write what was noted; whether we still led.

        Args:
            term: Ours.

        Raises:
            TransportError, BackendError: It could not be written, and is by the next call.
        """
        lines = dict(self._unwritten)
        if not lines:
            return True
        written = self._timetable.write(lines, term)
        self._unwritten.clear()
        return written

    def _take_in(self, key: str, line: Line) -> str | None:
        """Return the name of the entry that a line is about; None when it cannot be read."""
        try:
            found = decode(key, line)
        except DecodeError as exc:
            logger.error("beat: %s; it is left out.", exc)
            return None
        if isinstance(found, Run):
            self.runs[found.name] = found
            return found.name
        if found is None:  # a plan was removed, or a run
            name = self._names.pop(key, None)
            if name is not None:
                self.plans.pop(name, None)
            return name
        self._names[key] = found.name
        self.plans[found.name] = found
        return found.name
