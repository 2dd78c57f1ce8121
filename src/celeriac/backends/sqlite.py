"""Results in an SQLite file, by default the one that the embedded broker keeps its queues in."""

from __future__ import annotations

import importlib
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from celeriac.backends.bell_listener import BellListener
from celeriac.backends.documents import Documents, latest
from celeriac.backends.parts import by_chord
from celeriac.backends.shape import shape_of, shaped
from celeriac.backends.spec import BackendSpec
from celeriac.backends.sqlite_chords import add_awaited, add_parts, parts_of
from celeriac.backends.sqlite_expiry import ALL, remove_expired
from celeriac.backends.waiter import Awaited, Waiter
from celeriac.errors import BackendError, BackendUnreachable, CeleriacError
from celeriac.message import Outcome, Part, Record
from celeriac.net.doorbell import Bell, Ringer
from celeriac.net.url import parse
from celeriac.transports.sqlite import SqliteTransport
from celeriac.transports.sqlite_file import Handle, file_options, locate
from celeriac.tries import tries_from

if TYPE_CHECKING:
    from celeriac.net.lane import Lane

T = TypeVar("T")

RESULTS = "r"  # the kind of bell that waiting clients hang up
CLEANUP_EVERY_SECONDS = 30.0
CLEANUP_AGAIN_SECONDS = 0.1  # when there is more: what is stored a day later at the same pace goes as quickly
CLEANUP_AT_ONCE = 1000  # expired rows of a kind that are removed beside a store: a few ms
_IDS_AT_ONCE = 500  # SQLite's limit of parameters is higher, its statement cache is not


class SqliteBackend(Awaited):
    """Keeps results in the embedded broker's file, and wakes those who wait by their doorbells.

    Commits do not wait for the disk: what a power failure takes back, it takes back together with the
    acknowledgements that came after it, so that those tasks are delivered again.

    Args:
        spec: ``sqlite://`` is the file of the broker, if that is embedded, or the app's own; otherwise the
            URL is one of the broker's kind.

    Raises:
        ConfigError: The URL or an option is wrong.
    """

    persistent = True
    joins_chords = True

    def __init__(self, spec: BackendSpec) -> None:
        url = parse(spec.url)
        if isinstance(spec.transport, SqliteTransport) and not url.path and not url.host:
            self._location = spec.transport.location
        else:
            self._location = locate(url, spec.app_name)
        self.address: str = str(self._location.path)
        self._options = file_options(url, spec.options)
        self._expires_seconds = spec.expires_seconds
        self._chord_seconds = spec.chord_seconds
        self._documents = Documents(spec)
        self._handle = Handle(
            self._location, synchronous="normal", unreachable=BackendUnreachable, failed=_failed
        )
        self._next_cleanup = 0.0
        self._lane: Lane | None = None
        self._ringer = Ringer(self._location.bells)
        self._waiter = Waiter(self._listen, tries_from(spec.options))
        self._begin_process()

    # --- results ---

    def encode(
        self, outcome: Outcome, *, reply_to: str | None = None, correlation_id: str | None = None
    ) -> Record:
        """Return the record of an outcome."""
        return self._documents.encode(outcome)

    def reply_address(self) -> str | None:
        """Return None: results are fetched, not sent."""
        return None

    def store(self, batch: Sequence[Record]) -> None:
        """Write the records in one transaction and ring the bells of those who wait."""
        if not batch:
            return
        if self._pid != os.getpid():
            self._begin_process()
        now = time.time()
        records = latest(batch).values()
        rows = [(r.id, r.state, r.payload, self._expires_at(now), now) for r in records]
        self._write(lambda connection: self._insert(connection, rows, now))
        self._ringer.ring(RESULTS, b"\0".join(record.id.encode() for record in records))

    async def astore(self, batch: Sequence[Record]) -> None:
        """Do the same on the backend's own thread."""
        if self._pid != os.getpid():
            self._begin_process()
        await self._own_lane().run(self.store, batch)

    def fetch(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Return what is known of the ids now."""
        found = {}
        for start in range(0, len(ids), _IDS_AT_ONCE):
            found.update(self._fetch(ids[start : start + _IDS_AT_ONCE]))
        return found

    def forget(self, ids: Sequence[str]) -> None:
        """Remove what is stored of the ids."""
        rows = [(task_id,) for task_id in ids]
        self._write(lambda connection: connection.executemany("DELETE FROM results WHERE id = ?", rows))

    # --- groups and chords ---

    def save_group(self, group_id: str, result: Any) -> None:  # Any: nested result tuples
        """Keep the shape of a group's results."""
        self._save_group(group_id, result, self._expires_at(time.time()))

    def restore_group(self, group_id: str) -> Any | None:  # Any: nested result tuples
        """Return the shape kept by `save_group`, or None."""
        row = self._read(
            lambda connection: connection.execute(
                "SELECT payload FROM groups WHERE id = ? AND (expires IS NULL OR expires > ?)",
                (group_id, time.time()),
            ).fetchone()
        )
        return None if row is None else self._documents.decode_group(group_id, row[0])

    def delete_group(self, group_id: str) -> None:
        """Remove it."""
        self._write(lambda connection: connection.execute("DELETE FROM groups WHERE id = ?", (group_id,)))

    def start_chord(self, chord_id: str, size: int, members: Any) -> None:  # Any: nested result tuples
        """Note how many parts a chord has."""
        expires = time.time() + self._chord_seconds
        if (shape := shape_of(chord_id, members)) is not None:
            self._save_group(chord_id, shape, expires)
        row = (chord_id, size, expires)
        self._write(
            lambda connection: connection.execute(
                "INSERT INTO chords (id, size, expires) VALUES (?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET size = excluded.size",
                row,
            )
        )

    def chord_part(self, chord_id: str, index: int | None, outcome: Outcome) -> list[Outcome] | None:
        """Note one finished part; return all of them to whoever completed the chord.

        The task that completed it gets them again when it is delivered again before `end_chord`: it may
        have died before it could start the body.
        """
        part = self.encode_part(chord_id, index, outcome)
        expires = time.time() + self._chord_seconds

        def work(connection: sqlite3.Connection) -> list[tuple[str, bytes]] | None:
            if add_parts(connection, chord_id, [part], expires) is None:
                return None
            return parts_of(connection, chord_id)

        parts = self._write(work)
        if parts is None:
            return None
        return shaped(self, chord_id, [self._documents.read(task_id, data) for task_id, data in parts])

    def encode_part(self, chord_id: str, index: int | None, outcome: Outcome) -> Part:
        """Return a finished part in the form that `count_parts` takes."""
        payload = self._documents.encode(outcome).payload
        return Part(chord_id=chord_id, task_id=outcome.id, index=index, payload=payload)

    async def count_parts(self, batch: Sequence[Part]) -> list[str]:
        """Note finished parts in one transaction, and return the tasks that have completed their chords."""
        if self._pid != os.getpid():
            self._begin_process()
        return await self._own_lane().run(self._count, batch)

    def grow_chord(self, chord_id: str, task_ids: Sequence[str]) -> None:
        """Have a chord wait for more parts."""
        expires = time.time() + self._chord_seconds
        self._write(lambda connection: add_awaited(connection, chord_id, task_ids, expires))

    def end_chord(self, chord_id: str) -> None:
        """Remove what was kept for a chord."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM chords WHERE id = ?", (chord_id,))
            connection.execute("DELETE FROM chord_parts WHERE chord = ?", (chord_id,))

        self._write(work)

    def claim(self, task_id: str, copy: str) -> bool:
        """Return whether this copy of a task's message is the first that claims to be run."""
        now = time.time()
        row = (task_id, copy, self._expires_at(now))

        def work(connection: sqlite3.Connection) -> bool:
            self._clean_up_a_bit(connection, now)
            connection.execute("INSERT OR IGNORE INTO claims (id, copy, expires) VALUES (?, ?, ?)", row)
            found = connection.execute("SELECT copy FROM claims WHERE id = ?", (task_id,)).fetchone()
            return bool(found[0] == copy)

        return self._write(work)

    # --- the store itself ---

    def cleanup(self) -> None:
        """Remove everything that has expired."""
        now = time.time()
        self._write(lambda connection: remove_expired(connection, now, ALL))

    def close(self) -> None:
        """Close the connection of this process; the next call opens another one."""
        lane, self._lane = self._lane, None
        if lane is not None and self._pid == os.getpid():
            lane.close()
        self._handle.close()
        self._ringer.close()

    # --- inside ---

    def _count(self, batch: Sequence[Part]) -> list[str]:
        chords = by_chord(batch)
        expires = time.time() + self._chord_seconds

        def work(connection: sqlite3.Connection) -> list[str | None]:
            return [add_parts(connection, chord_id, parts, expires) for chord_id, parts in chords.items()]

        return [task_id for task_id in self._write(work) if task_id is not None]

    def _own_lane(self) -> Lane:
        if self._lane is None:  # asyncio is half of what a client would have to load, and few use it
            self._lane = importlib.import_module("celeriac.net.lane").Lane("celeriac-sqlite-results")
        lane: Lane = self._lane
        return lane

    def _begin_process(self) -> None:
        # A forked child has not the parent's thread; the handle looks after itself.
        self._pid = os.getpid()
        self._lane = None
        self._ringer.close()
        self._ringer = Ringer(self._location.bells)

    def _save_group(self, group_id: str, result: Any, expires: float | None) -> None:  # Any: as `save_group`
        row = (group_id, self._documents.encode_group(result), expires)
        insert = "INSERT OR REPLACE INTO groups (id, payload, expires) VALUES (?, ?, ?)"
        self._write(lambda connection: connection.execute(insert, row))

    def _expires_at(self, now: float) -> float | None:
        return now + self._expires_seconds if self._expires_seconds else None

    def _insert(
        self,
        connection: sqlite3.Connection,
        rows: Sequence[tuple[str, str, bytes, float | None, float]],
        now: float,
    ) -> None:
        connection.executemany(
            "INSERT INTO results (id, state, payload, expires) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE "
            "SET state = excluded.state, payload = excluded.payload, expires = excluded.expires "
            "WHERE results.expires <= ? OR NOT (results.state = 'SUCCESS' "  # as `celeriac.states.stays`
            "OR (excluded.state = 'RETRY' AND results.state IN ('FAILURE', 'REVOKED')))",
            rows,
        )
        self._clean_up_a_bit(connection, now)

    def _clean_up_a_bit(self, connection: sqlite3.Connection, now: float) -> None:
        """Remove some of what has expired, now and then: nobody has to schedule it."""
        if self._next_cleanup <= now:
            more = remove_expired(connection, now, CLEANUP_AT_ONCE)
            self._next_cleanup = now + (CLEANUP_AGAIN_SECONDS if more else CLEANUP_EVERY_SECONDS)

    def _fetch(self, ids: Sequence[str]) -> dict[str, Outcome]:
        marks = ",".join("?" * len(ids))
        rows = self._read(
            lambda connection: connection.execute(
                f"SELECT id, payload FROM results WHERE id IN ({marks}) "  # noqa: S608 - question marks
                "AND (expires IS NULL OR expires > ?)",
                (*ids, time.time()),
            ).fetchall()
        )
        return {task_id: self._documents.read(task_id, payload) for task_id, payload in rows}

    def _listen(self) -> BellListener:
        return BellListener(self.fetch, self._hang_up_bell, self._options.poll_seconds)

    def _hang_up_bell(self) -> Bell | None:
        self._read(lambda connection: None)  # makes the folder, when it is ours
        try:
            return Bell(self._location.bells, RESULTS)
        except OSError:  # no such sockets here, or a directory that is not ours: poll
            return None

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._handle.write(work, self._options.busy_timeout)
        except TimeoutError as exc:
            raise BackendUnreachable(
                f"Others kept the result store's file {self._location.path} locked for "
                f"{self._options.busy_timeout:g} s."
            ) from exc

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._handle.read(work)
        except TimeoutError as exc:
            raise BackendUnreachable(f"The result store's file {self._location.path} is locked.") from exc


def _failed(text: str) -> CeleriacError:
    return BackendError(text)
