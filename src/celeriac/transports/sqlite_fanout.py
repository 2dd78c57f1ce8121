"""Broadcasts through the embedded broker's file: a short log that every listener reads for itself.

A broadcast is one row, however many listen, and none when nobody does. Listeners are rows that their owners
keep fresh. The log is bounded by age and by number: who is slower misses some, as with any broadcast.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from celeriac.errors import TransportError
from celeriac.message import Broadcast
from celeriac.net.doorbell import Bell, Ringer
from celeriac.net.lane import Lane
from celeriac.queues import Exchange, Queue
from celeriac.transports.blob import pack, unpack_or_defect
from celeriac.transports.exchanges import Bound, route
from celeriac.transports.sqlite_file import FileOptions, Handle, Location
from celeriac.transports.subscription import Inbox

T = TypeVar("T")

KEPT_SECONDS: Final = 60.0
KEPT_ROWS: Final = 20_000
_FRESH_SECONDS: Final = 60.0  # a listener that was not refreshed for so long is gone
_REFRESH_SECONDS: Final = 20.0
_CLEAN_EVERY: Final = 64  # publications
_NO_BELL_POLL_SECONDS: Final = 0.05
_READ_AT_ONCE: Final = 1000
_LOCK_SECONDS: Final = 10.0


class SqliteFanout:
    """Sends and hears broadcasts, `celeriac.ports.Fanout`.

    Args:
        location: The broker's file.
        handle: A connection of the fanout's own; its commits need not wait for the disk.
        options: The file's options.
    """

    def __init__(self, location: Location, handle: Handle, options: FileOptions) -> None:
        self._location = location
        self._handle = handle
        self._poll_seconds = options.poll_seconds
        self._ringer = Ringer(location.bells)
        self._ringer_pid = os.getpid()
        self._lane: Lane | None = None
        self._lane_pid = 0
        self._count = itertools.count(1)
        self._listeners: dict[Inbox, _Listener] = {}

    # --- sending ---------------------------------------------------------------------------------------

    def publish(self, batch: Sequence[Broadcast], *, deadline: float) -> int:
        """See `celeriac.ports.Fanout`; when nobody listens, nothing is written."""
        until = time.monotonic() + deadline
        heard = self._handle.read(lambda connection: _heard(connection, batch))
        if not any(heard):
            return 0
        rows = [
            (broadcast.exchange.name, broadcast.routing_key, pack(broadcast.envelope))
            for broadcast, count in zip(batch, heard, strict=True)
            if count
        ]
        cleans = next(self._count) % _CLEAN_EVERY == 0
        try:
            self._handle.write(lambda connection: _insert(connection, rows, cleans), until - time.monotonic())
        except TimeoutError as exc:
            raise TransportError(
                f"Nothing was broadcast: others kept the file {self._location.path} locked."
            ) from exc
        if self._ringer_pid != os.getpid():
            self._ringer.close()
            self._ringer, self._ringer_pid = Ringer(self._location.bells), os.getpid()
        for exchange in {row[0] for row in rows}:
            self._ringer.ring(_bell_kind(exchange))
        return sum(heard)

    async def apublish(self, batch: Sequence[Broadcast], *, deadline: float) -> int:
        """See `celeriac.ports.Fanout`."""
        return await self._own_lane().run(self.publish, batch, deadline=deadline)

    # --- listening -------------------------------------------------------------------------------------

    async def subscribe(self, queue: Queue) -> Inbox:
        """See `celeriac.ports.Fanout`."""
        inbox = Inbox(queue, self._leave)
        listener = _Listener(inbox, self._location, self._handle, self._own_lane(), self._poll_seconds)
        await listener.open()
        self._listeners[inbox] = listener
        return inbox

    async def _leave(self, inbox: Inbox) -> None:
        await self._listeners.pop(inbox).close()

    def _own_lane(self) -> Lane:
        if self._lane is None or self._lane_pid != os.getpid():  # a fork leaves the parent's thread behind
            self._lane, self._lane_pid = Lane("celeriac-sqlite-broadcasts"), os.getpid()
        return self._lane

    # --- the end ---------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """See `celeriac.ports.Fanout`."""
        for inbox in list(self._listeners):
            await inbox.close()

    def close(self) -> None:
        """See `celeriac.ports.Fanout`."""
        lane, self._lane = self._lane, None
        if lane is not None and self._lane_pid == os.getpid():
            lane.close()
        self._handle.close()
        self._ringer.close()


class _Listener:
    """Reads the log for one inbox, whenever a bell rings and once in a while."""

    def __init__(
        self, inbox: Inbox, location: Location, handle: Handle, lane: Lane, poll_seconds: float
    ) -> None:
        self._inbox = inbox
        self._location = location
        self._handle = handle
        self._lane = lane
        self._poll_seconds = poll_seconds
        self._id = 0
        self._read_to = 0
        self._refresh_at = 0.0
        self._bell: Bell | None = None
        self._rung = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        queue = self._inbox.queue
        kind = _bell_kind(queue.exchange.name)
        try:
            self._bell = Bell(self._location.bells, kind)
        except OSError:
            self._poll_seconds = min(self._poll_seconds, _NO_BELL_POLL_SECONDS)
        try:
            await self._lane.run(self._join)
        except BaseException:
            self._hang_down()
            raise
        if self._bell is not None:
            asyncio.get_running_loop().add_reader(self._bell.fileno(), self._on_bell)
        self._task = asyncio.create_task(self._run(), name=f"listen {queue.name}")

    async def close(self) -> None:
        if self._bell is not None:
            asyncio.get_running_loop().remove_reader(self._bell.fileno())
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._hang_down()
        with contextlib.suppress(TransportError):  # then its row grows old
            await self._lane.run(self._part)

    def _hang_down(self) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    def _on_bell(self) -> None:
        if self._bell is not None:
            self._bell.drain()
        self._rung.set()

    async def _run(self) -> None:
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await self._rung.wait()
                self._rung.clear()
                while rows := await self._lane.run(self._read):
                    for key, blob in rows:
                        self._put(key, blob)
        except TransportError as exc:
            self._inbox.fail(exc)

    def _put(self, key: str, blob: bytes) -> None:
        exchange = self._inbox.queue.exchange
        envelope, defect = unpack_or_defect(blob)
        if _is_for(exchange, self._inbox.queue.routing_key, key):
            self._inbox.put(Broadcast(envelope=envelope, exchange=exchange, routing_key=key, defect=defect))

    # --- on the lane -----------------------------------------------------------------------------------

    def _join(self) -> None:
        queue = self._inbox.queue

        def work(connection: sqlite3.Connection) -> None:
            cursor = connection.execute(
                "INSERT INTO listeners (exchange, kind, pattern, expires) VALUES (?, ?, ?, ?)",
                (queue.exchange.name, queue.exchange.type, queue.routing_key, time.time() + _FRESH_SECONDS),
            )
            self._id = cursor.lastrowid or 0
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'broadcasts'").fetchone()
            self._read_to = row[0] if row else 0

        self._write(work)
        self._refresh_at = time.monotonic() + _REFRESH_SECONDS

    def _read(self) -> list[tuple[str, bytes]]:
        if time.monotonic() >= self._refresh_at:
            self._handle.reopen_if_replaced()
            self._refresh()
        name = self._inbox.queue.exchange.name
        rows = self._handle.read(
            lambda connection: connection.execute(
                "SELECT id, routing_key, blob FROM broadcasts WHERE exchange = ? AND id > ? "
                "ORDER BY id LIMIT ?",
                (name, self._read_to, _READ_AT_ONCE),
            ).fetchall()
        )
        if rows:
            self._read_to = rows[-1][0]
        return [(key, blob) for _, key, blob in rows]

    def _refresh(self) -> None:
        expires = time.time() + _FRESH_SECONDS

        def work(connection: sqlite3.Connection) -> bool:
            connection.execute("DELETE FROM listeners WHERE expires < ?", (time.time(),))
            changed = connection.execute(
                "UPDATE listeners SET expires = ? WHERE id = ?", (expires, self._id)
            ).rowcount
            return bool(changed)

        if not self._write(work):
            # The process was stopped for long, or the file is another one.
            raise TransportError(
                f"Whoever listened in {self._location.path} was taken for gone: what others said meanwhile "
                "was not heard."
            )
        self._refresh_at = time.monotonic() + _REFRESH_SECONDS

    def _part(self) -> None:
        self._write(lambda connection: connection.execute("DELETE FROM listeners WHERE id = ?", (self._id,)))

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._handle.write(work, _LOCK_SECONDS)
        except TimeoutError as exc:
            raise TransportError(f"The file {self._location.path} stays locked.") from exc


def _heard(connection: sqlite3.Connection, batch: Sequence[Broadcast]) -> list[int]:
    """Return how many listeners each broadcast is for."""
    now = time.time()
    found: dict[str, list[tuple[str, str]]] = {}
    counts = []
    for broadcast in batch:
        exchange = broadcast.exchange
        if exchange.name not in found:
            found[exchange.name] = connection.execute(
                "SELECT kind, pattern FROM listeners WHERE exchange = ? AND expires >= ?",
                (exchange.name, now),
            ).fetchall()
        counts.append(
            sum(
                _is_for(Exchange(name=exchange.name, type=kind), pattern, broadcast.routing_key)
                for kind, pattern in found[exchange.name]
            )
        )
    return counts


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[str, str, bytes]], cleans: bool) -> None:
    now = time.time()
    connection.executemany(
        "INSERT INTO broadcasts (exchange, routing_key, at, blob) VALUES (?, ?, ?, ?)",
        [(exchange, key, now, blob) for exchange, key, blob in rows],
    )
    if cleans:
        newest = connection.execute("SELECT max(id) FROM broadcasts").fetchone()[0]
        connection.execute(
            "DELETE FROM broadcasts WHERE at < ? OR id <= ?", (now - KEPT_SECONDS, newest - KEPT_ROWS)
        )


def _is_for(exchange: Exchange, pattern: str, routing_key: str) -> bool:
    bound = Bound(exchange=exchange.name, queue="", routing_key=pattern)
    return bool(route(exchange.type, [bound], routing_key, {}))


def _bell_kind(exchange: str) -> str:
    """Return the kind of bell for an exchange; a worker that waits for commands sleeps through events."""
    return f"b{zlib.crc32(exchange.encode()):08x}"
