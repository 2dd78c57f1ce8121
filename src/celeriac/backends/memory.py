"""Results inside the process, for tests: ``memory://``; the same URL is the same store."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from celeriac.backends.documents import Documents, latest
from celeriac.backends.shape import in_shape, shape_of
from celeriac.backends.spec import BackendSpec
from celeriac.backends.upkeep import Upkeep
from celeriac.backends.waiter import Awaited, Waiter
from celeriac.forklock import ForkLock
from celeriac.message import Outcome, Record
from celeriac.states import READY_STATES, stays


class _Chord(msgspec.Struct):
    """What has been noted of a chord."""

    size: int | None = None
    finisher: str | None = None  # whose part was the last one
    parts: dict[str, tuple[int | None, bytes]] = {}
    added: set[str] = set()  # the tasks that it has grown by
    shape: bytes | None = None  # of a header with groups inside
    touched_at: float = 0.0  # when something was last noted


class _Store:
    """The results of one URL; ``changed`` is its lock as well."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 0  # grows with every change of results
        self.results: dict[str, tuple[Record, float | None]] = {}  # with the moment they expire
        self.groups: dict[str, tuple[bytes, float | None]] = {}  # the same
        self.chords: dict[str, _Chord] = {}
        self.claims: dict[str, tuple[str, float | None]] = {}  # copies, by task, the same

    def chord(self, chord_id: str) -> _Chord:
        """Return what is known of a chord, with the lock held."""
        chord = self.chords.setdefault(chord_id, _Chord())
        chord.touched_at = time.monotonic()
        return chord


class _Listener:
    """Hears of results by the store's condition; see `celeriac.ports.Listener`."""

    def __init__(self, store: _Store, fetch: Callable[[Sequence[str]], dict[str, Outcome]]) -> None:
        self._store = store
        self._fetch = fetch
        self._watched: dict[str, None] = {}
        self._seen = 0  # the store's version when it was last looked at
        self._woken = False

    def watch(self, ids: Sequence[str]) -> list[Outcome]:
        self._watched.update(dict.fromkeys(ids))
        return self._look(ids)

    def unwatch(self, ids: Sequence[str]) -> None:
        for id in ids:
            self._watched.pop(id, None)

    def hear(self, until: float) -> list[Outcome]:
        with self._store.changed:
            left = None if until == math.inf else max(0.0, until - time.monotonic())
            self._store.changed.wait_for(lambda: self._woken or self._store.version != self._seen, left)
            self._woken = False
            self._seen = self._store.version
        return self._look(list(self._watched))

    def wake(self) -> None:
        with self._store.changed:
            self._woken = True
            self._store.changed.notify_all()

    def close(self) -> None: ...

    def _look(self, ids: Sequence[str]) -> list[Outcome]:
        found = list(self._fetch(ids).values())
        for outcome in found:
            if outcome.state in READY_STATES:
                del self._watched[outcome.id]
        return found


_stores: dict[str, _Store] = {}
_stores_lock = ForkLock()


def _after_fork() -> None:
    for store in list(_stores.values()):
        store.changed = threading.Condition()  # a thread that the child has not may hold it


os.register_at_fork(after_in_child=_after_fork)


def _store_at(url: str) -> _Store:
    with _stores_lock:
        return _stores.setdefault(url.partition("://")[2], _Store())


class MemoryBackend(Awaited):
    """Keeps results in this process.

    Args:
        spec: Its URL names the store.
    """

    persistent = True
    joins_chords = True

    def __init__(self, spec: BackendSpec) -> None:
        self._documents = Documents(spec)
        self._expires_seconds = spec.expires_seconds
        self._chord_seconds = spec.chord_seconds
        self._store = _store_at(spec.url)
        self._upkeep = Upkeep(spec.expires_seconds, self.cleanup)
        self._waiter = Waiter(lambda: _Listener(self._store, self.fetch))

    def encode(
        self, outcome: Outcome, *, reply_to: str | None = None, correlation_id: str | None = None
    ) -> Record:
        """Return the record of an outcome."""
        return self._documents.encode(outcome)

    def reply_address(self) -> str | None:
        """Return None: results are fetched, not sent."""
        return None

    def store(self, batch: Sequence[Record]) -> None:
        """Keep the records and wake whoever waits."""
        expires_at = self._expires_at()
        with self._store.changed:
            results = self._store.results
            for task_id, record in latest(batch).items():
                if (known := results.get(task_id)) is None or not stays(known[0].state, record.state):
                    results[task_id] = (record, expires_at)
            self._store.version += 1
            self._store.changed.notify_all()
        self._upkeep.after_store()

    async def astore(self, batch: Sequence[Record]) -> None:
        """Do the same; it never blocks for long."""
        self.store(batch)

    def fetch(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Return what is known of the ids now."""
        with self._store.changed:
            found = self._known(ids, lambda record: True)
        return {record.id: self._documents.read(record.id, record.payload) for record in found}

    def forget(self, ids: Sequence[str]) -> None:
        """Remove what is stored of the ids."""
        with self._store.changed:
            for task_id in ids:
                self._store.results.pop(task_id, None)

    def save_group(self, group_id: str, result: Any) -> None:  # Any: nested result tuples
        """Keep the shape of a group's results."""
        self._store.groups[group_id] = (self._documents.encode_group(result), self._expires_at())

    def restore_group(self, group_id: str) -> Any | None:  # Any: nested result tuples
        """Return the shape kept by `save_group`, or None."""
        document, expires_at = self._store.groups.get(group_id, (None, None))
        if document is None or (expires_at is not None and expires_at <= time.monotonic()):
            return None
        return self._documents.decode_group(group_id, document)

    def delete_group(self, group_id: str) -> None:
        """Remove it."""
        self._store.groups.pop(group_id, None)

    def start_chord(self, chord_id: str, size: int, members: Any) -> None:  # Any: nested result tuples
        """Note how many parts a chord has."""
        shape = shape_of(chord_id, members)
        document = None if shape is None else self._documents.encode_group(shape)
        with self._store.changed:
            chord = self._store.chord(chord_id)
            chord.size, chord.shape = size, document

    def chord_part(self, chord_id: str, index: int | None, outcome: Outcome) -> list[Outcome] | None:
        """Note one finished part; return all of them to whoever completed the chord.

        The task that completed it gets them again when it is delivered again before `end_chord`: it may
        have died before it could start the body.
        """
        document = self._documents.encode(outcome).payload
        with self._store.changed:
            chord = self._store.chord(chord_id)
            chord.parts.setdefault(outcome.id, (index, document))
            if chord.size is None or len(chord.parts) < chord.size + len(chord.added):
                return None
            if chord.finisher is None:
                chord.finisher = outcome.id
            if chord.finisher != outcome.id:
                return None
            parts = sorted(chord.parts.items(), key=lambda part: (part[1][0] is None, part[1][0] or 0))
        found = [self._documents.read(task_id, data) for task_id, (_, data) in parts]
        if chord.shape is None:
            return found
        return in_shape(self, self._documents.decode_group(chord_id, chord.shape), found)

    def grow_chord(self, chord_id: str, task_ids: Sequence[str]) -> None:
        """Have a chord wait for more parts."""
        with self._store.changed:
            chord = self._store.chord(chord_id)
            if chord.finisher is None:
                chord.added.update(task_ids)

    def end_chord(self, chord_id: str) -> None:
        """Remove what was kept for a chord."""
        with self._store.changed:
            self._store.chords.pop(chord_id, None)

    def claim(self, task_id: str, copy: str) -> bool:
        """Return whether this copy of a task's message is the first that claims to be run."""
        with self._store.changed:
            first, _ = self._store.claims.setdefault(task_id, (copy, self._expires_at()))
        self._upkeep.after_store()
        return first == copy

    def cleanup(self) -> None:
        """Remove what has expired."""
        now = time.monotonic()
        with self._store.changed:
            kept: tuple[dict[str, Any], ...] = (self._store.results, self._store.groups, self._store.claims)
            for entries in kept:
                for key, (_, expires_at) in list(entries.items()):
                    if expires_at is not None and expires_at <= now:
                        del entries[key]
            for chord_id, chord in list(self._store.chords.items()):
                if chord.touched_at + self._chord_seconds <= now:
                    del self._store.chords[chord_id]

    def close(self) -> None:
        """Do nothing: the store lives as long as the process."""

    def _expires_at(self) -> float | None:
        return time.monotonic() + self._expires_seconds if self._expires_seconds else None

    def _known(self, ids: Sequence[str], wanted: Callable[[Record], bool]) -> list[Record]:
        now = time.monotonic()
        found = []
        for task_id in ids:
            entry = self._store.results.get(task_id)
            if entry is not None and (entry[1] is None or entry[1] > now) and wanted(entry[0]):
                found.append(entry[0])
        return found
