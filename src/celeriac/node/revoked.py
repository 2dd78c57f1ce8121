"""What was revoked: ids and stamps of tasks that shall not run."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from celeriac.message import TaskHeaders
from celeriac.revocations import KEPT_SECONDS, MOST, Remembered, Revocation, stamp_texts


class Revoked:
    """The revoked tasks that a node knows of; bounded, the oldest are forgotten first.

    Args:
        most: How many ids are kept, how many stamps, and how many of what was to be ended.
        kept_seconds: How long each is kept.
    """

    def __init__(self, most: int = MOST, kept_seconds: float = KEPT_SECONDS) -> None:
        self.changes: int = 0  # how often something was added
        self._most = most
        self._kept_seconds = kept_seconds
        # With when it was made, on the monotonic clock; ids by themselves, for every message is looked up.
        self._ids: OrderedDict[str, float] = OrderedDict()
        self._stamps: OrderedDict[Revocation, float] = OrderedDict()
        # What was to be ended, with its signal: not looked at for a message, but no signal is sent twice.
        self._ends: OrderedDict[Revocation, float] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._ids or self._stamps)

    def add(self, revoked: Iterable[Revocation]) -> None:
        """Note what was revoked just now."""
        now = time.monotonic()
        for each in revoked:
            self._put(each, now)
        self._forget(now)

    def remember(self, remembered: Iterable[Remembered]) -> list[Revocation]:
        """Note what was revoked a while ago and return what of it was not known."""
        now = time.monotonic()
        new = []
        for kept in remembered:
            each = kept.revocation
            if kept.age_seconds < self._kept_seconds and not self._knows(each):
                new.append(each)
                self._put(each, now - kept.age_seconds)
        self._forget(now)
        return new

    def merge(self, others: Mapping[str, Any]) -> set[str]:
        """Take in what another node knows: ids, with a time of its own clock that means nothing here.

        Returns:
            Those that were not known here.
        """
        new = {task_id for task_id in others if task_id not in self._ids}
        self.add(Revocation(task_id) for task_id in others if task_id in new)
        return new

    def ids(self) -> list[str]:
        """Return the ids, oldest first."""
        self._forget(time.monotonic())
        return list(self._ids)

    def with_times(self) -> dict[str, list[Any]]:
        """Return the ids as nodes tell each other: each with when it was said and itself."""
        self._forget(time.monotonic())
        return {task_id: [said, task_id] for task_id, said in self._ids.items()}

    def remembered(self) -> list[Remembered]:
        """Return all that shall not begin, to be kept elsewhere; not what was ended, for that is over."""
        now = time.monotonic()
        self._forget(now)
        ids = [Remembered(Revocation(task_id), now - made) for task_id, made in self._ids.items()]
        return ids + [Remembered(each, now - made) for each, made in self._stamps.items()]

    def covers(self, headers: TaskHeaders) -> bool:
        """Return whether a task is revoked."""
        made = self._ids.get(headers.id)
        if made is not None and time.monotonic() - made < self._kept_seconds:
            return True
        return bool(self._stamps and headers.stamps) and self._stamped(headers.stamps or {})

    def _stamped(self, stamps: Mapping[str, Any]) -> bool:
        oldest = time.monotonic() - self._kept_seconds
        return any(
            self._stamps.get(Revocation(text, name), oldest) > oldest
            for name, value in stamps.items()
            for text in stamp_texts(value)
        )

    def _knows(self, each: Revocation) -> bool:
        if each.signal:
            return each in self._ends
        return each in self._stamps if each.stamp else each.value in self._ids

    def _put(self, each: Revocation, made: float) -> None:
        self.changes += 1
        if each.signal or each.stamp:
            known = self._ends if each.signal else self._stamps
            known[each] = made
            known.move_to_end(each)
        else:
            self._ids[each.value] = made
            self._ids.move_to_end(each.value)

    def _forget(self, now: float) -> None:
        for known in (self._ids, self._stamps, self._ends):
            while known and (
                len(known) > self._most or now - next(iter(known.values())) >= self._kept_seconds
            ):
                known.popitem(last=False)
