"""The timetables of a memory broker."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final

from celeriac.timetable import Changes, Lead, Line

_NEVER: Final = Line(None, 0)


class MemoryTimetables:
    """The timetables of one broker, by their owners."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, MemoryTimetable] = {}

    def of(self, owner: str) -> MemoryTimetable:
        """Return the timetable of an app."""
        with self._lock:
            return self._known.setdefault(owner, MemoryTimetable())


class MemoryTimetable:
    """A timetable for the schedulers of one process, `celeriac.timetable.Timetable`; safe for threads."""

    address = "memory"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lead = Lead()
        self._revision = 0
        self._lines: dict[str, Line] = {}

    def lead(self) -> Lead:
        """See `celeriac.timetable.Timetable`."""
        return self._lead

    def take(self, holder: str, term: int, at: float) -> bool:
        """See `celeriac.timetable.Timetable`."""
        with self._lock:
            if self._lead.term != term:
                return False
            self._lead = Lead(holder, term + 1, at)
            return True

    def changes(self, after: int) -> Changes:
        """See `celeriac.timetable.Timetable`."""
        with self._lock:
            found = {key: line for key, line in self._lines.items() if line.revision > after}
            return Changes(self._revision, found)

    def write(self, lines: Mapping[str, bytes | None], term: int) -> bool:
        """See `celeriac.timetable.Timetable`."""
        with self._lock:
            if self._lead.term != term:
                return False
            self._put(lines)
            return True

    def edit(self, key: str, value: bytes | None, revision: int) -> bool:
        """See `celeriac.timetable.Timetable`."""
        with self._lock:
            if self._lines.get(key, _NEVER).revision != revision:
                return False
            self._put({key: value})
            return True

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _put(self, lines: Mapping[str, bytes | None]) -> None:
        self._revision += 1
        for key, value in lines.items():
            self._lines[key] = Line(value, self._revision)
