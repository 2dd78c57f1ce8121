"""What was revoked: ids and stamps of tasks that shall not run."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from celeriac.message import TaskHeaders

MOST_IDS = 50_000
KEPT_SECONDS = 10_800.0


class Revoked:
    """The revoked tasks that a node knows of; bounded, the oldest are forgotten first.

    Args:
        most_ids: How many ids are kept.
        kept_seconds: How long an id is kept.
    """

    def __init__(self, most_ids: int = MOST_IDS, kept_seconds: float = KEPT_SECONDS) -> None:
        self._most = most_ids
        self._kept_seconds = kept_seconds
        self._ids: OrderedDict[str, float] = OrderedDict()  # with when it was said, on the monotonic clock
        self.stamps: dict[str, list[Any]] = {}  # Any: values of a stamp, by its name

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._ids or self.stamps)

    def add(self, ids: Iterable[str]) -> None:
        """Note that tasks are revoked."""
        now = time.monotonic()
        for task_id in ids:
            self._ids[task_id] = now
            self._ids.move_to_end(task_id)
        self._forget(now)

    def add_stamps(self, stamps: Mapping[str, Any]) -> None:
        """Note that tasks with a stamp are revoked: one of these values, or this one."""
        for name, value in stamps.items():
            known = self.stamps.setdefault(name, [])
            known.extend(each for each in _values(value) if each not in known)

    def merge(self, others: Mapping[str, Any]) -> None:
        """Take in what another node knows: ids, with a time of its own clock that means nothing here."""
        self.add(task_id for task_id in others if task_id not in self._ids)

    def ids(self) -> list[str]:
        """Return the ids, oldest first."""
        self._forget(time.monotonic())
        return list(self._ids)

    def with_times(self) -> dict[str, list[Any]]:
        """Return the ids as nodes tell each other: each with when it was said and itself."""
        self._forget(time.monotonic())
        return {task_id: [said, task_id] for task_id, said in self._ids.items()}

    def covers(self, headers: TaskHeaders) -> bool:
        """Return whether a task is revoked."""
        said = self._ids.get(headers.id)
        if said is not None and time.monotonic() - said < self._kept_seconds:
            return True
        return bool(self.stamps and headers.stamps) and self._stamped(headers.stamps or {})

    def _stamped(self, stamps: Mapping[str, Any]) -> bool:
        return any(
            value in self.stamps[name]
            for name, given in stamps.items()
            if name in self.stamps
            for value in _values(given)
        )

    def _forget(self, now: float) -> None:
        ids = self._ids
        while ids and (len(ids) > self._most or now - next(iter(ids.values())) >= self._kept_seconds):
            ids.popitem(last=False)


def _values(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
