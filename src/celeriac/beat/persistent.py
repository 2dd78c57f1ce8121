"""The scheduler that knows after a restart when it sent what."""

from __future__ import annotations

import datetime
import sqlite3
from typing import Any

from celeriac.beat.scheduler import Scheduler
from celeriac.beat.store import Run, RunStore, SqliteRunStore

__all__ = ["PersistentScheduler"]

_UTC = datetime.UTC


class PersistentScheduler(Scheduler):
    """Keeps when each entry was sent last, as soon as it was: the death of the process loses nothing.

    Args:
        *args: As for `Scheduler`.
        **kwargs: Likewise; ``schedule_filename`` is the file.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.schedule_filename: str = kwargs.get("schedule_filename") or "celerybeat-schedule"
        self._store: RunStore | None = None
        super().__init__(*args, **kwargs)

    def open_store(self) -> RunStore:
        """Return where runs are kept; opened now."""
        return SqliteRunStore(self.schedule_filename)

    def setup_schedule(self) -> None:
        """Read the entries, and when they were sent last."""
        super().setup_schedule()
        self._store = self.open_store()
        for name, run in self._store.load().items():
            if name in self.schedule:
                entry = self.schedule[name]
                entry.last_run_at = run.last_run_at.astimezone(getattr(entry.schedule, "tz", _UTC))
                entry.total_run_count = run.times
        self.sync()

    def sent(self, entry: Any) -> None:
        """Keep when an entry was sent."""
        if self._store is not None:
            try:
                self._store.save(entry.name, _run_of(entry))
            except sqlite3.Error as exc:
                self.logger.error(
                    "beat: It cannot be kept in %s that %s was sent: %s; a restart may send it again.",
                    self.schedule_filename, entry.name, exc,
                )  # fmt: skip

    def sync(self) -> None:
        """Keep when every entry was sent, and forget those that are gone."""
        if self._store is not None:
            self._store.replace({name: _run_of(entry) for name, entry in self.schedule.items()})

    def close(self) -> None:
        """Keep everything, and close the file."""
        super().close()
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def info(self) -> str:
        """A line for the banner."""
        return f"    . db -> {self.schedule_filename}"


def _run_of(entry: Any) -> Run:
    moment: datetime.datetime = entry.last_run_at
    aware = moment.replace(tzinfo=_UTC) if moment.tzinfo is None else moment
    return Run(aware, entry.total_run_count)
