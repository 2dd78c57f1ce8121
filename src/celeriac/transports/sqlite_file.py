"""The embedded broker's file: where it is, what is in it, and handles on it that are safe to use.

WAL, so that readers never wait; every write is a ``BEGIN IMMEDIATE``, so that it waits at its beginning
only. Messages are rows that are written once: what changes is which small table names them (ready,
keyed, parked, leases or dead), so that a claim does not write the messages' bodies again.
"""

from __future__ import annotations

import os
import random
import re
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from celeriac.errors import CeleriacError, ConfigError, TransportError
from celeriac.forklock import ForkLock, around_forks
from celeriac.letters import MOST_LETTERS
from celeriac.net.url import Url

T = TypeVar("T")

SCHEMA_VERSION = 6
SCHEMA = """
CREATE TABLE queues (name TEXT PRIMARY KEY, arguments BLOB, auto_delete INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE exchanges (name TEXT PRIMARY KEY, kind TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE bindings (exchange TEXT, queue TEXT, routing_key TEXT, arguments BLOB,
    PRIMARY KEY (exchange, queue, routing_key, arguments)) WITHOUT ROWID;

-- exchange and routing_key are NULL when the message went straight to its queue; expires: epoch seconds
CREATE TABLE messages (id INTEGER PRIMARY KEY, exchange TEXT, routing_key TEXT, expires REAL,
    blob BLOB NOT NULL);
-- rank: 255 - priority; handed: how many consumers have had it; flags: 1 redelivered, 2 lost, 4 has a key
CREATE TABLE ready (queue TEXT, rank INTEGER, id INTEGER, handed INTEGER NOT NULL, flags INTEGER NOT NULL,
    PRIMARY KEY (queue, rank, id)) WITHOUT ROWID;
CREATE TABLE parked (queue TEXT, due REAL, id INTEGER, rank INTEGER NOT NULL, handed INTEGER NOT NULL,
    flags INTEGER NOT NULL, PRIMARY KEY (queue, due, id)) WITHOUT ROWID;
CREATE TABLE leases (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, queue TEXT NOT NULL,
    rank INTEGER NOT NULL, handed INTEGER NOT NULL, flags INTEGER NOT NULL,
    started INTEGER NOT NULL DEFAULT 0);
CREATE TABLE dead (id INTEGER PRIMARY KEY, queue TEXT NOT NULL, rank INTEGER NOT NULL,
    handed INTEGER NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL DEFAULT '',
    node TEXT NOT NULL DEFAULT '');
CREATE INDEX dead_by_queue ON dead (queue, at);
-- expires: seconds on the monotonic clock of the boot; AUTOINCREMENT: the id is the fencing token
CREATE TABLE owners (id INTEGER PRIMARY KEY AUTOINCREMENT, node TEXT NOT NULL, boot TEXT NOT NULL,
    expires REAL NOT NULL, bell TEXT);
CREATE TABLE consumed (queue TEXT, owner INTEGER, PRIMARY KEY (queue, owner)) WITHOUT ROWID;

CREATE TABLE results (id TEXT PRIMARY KEY, state TEXT NOT NULL, payload BLOB NOT NULL, expires REAL);
CREATE INDEX results_by_expiry ON results (expires) WHERE expires IS NOT NULL;
CREATE TABLE groups (id TEXT PRIMARY KEY, payload BLOB NOT NULL, expires REAL) WITHOUT ROWID;
-- size: -1 when parts have come before the chord was announced; finisher: the task that completed it;
-- arrived: how many parts have, less those that the chord has grown by; a part with no payload is awaited
CREATE TABLE chords (id TEXT PRIMARY KEY, size INTEGER NOT NULL, finisher TEXT, expires REAL,
    arrived INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE chord_parts (chord TEXT, task TEXT, position INTEGER, payload BLOB NOT NULL, expires REAL,
    PRIMARY KEY (chord, task)) WITHOUT ROWID;
CREATE TABLE claims (id TEXT PRIMARY KEY, copy TEXT NOT NULL, expires REAL) WITHOUT ROWID;
"""
FROM_VERSION_1 = """
ALTER TABLE chords ADD COLUMN arrived INTEGER NOT NULL DEFAULT 0;
UPDATE chords SET arrived = (SELECT count(*) FROM chord_parts WHERE chord = chords.id);
CREATE TABLE claims (id TEXT PRIMARY KEY, copy TEXT NOT NULL, expires REAL) WITHOUT ROWID;
"""
FROM_VERSION_2 = """
ALTER TABLE dead ADD COLUMN kind TEXT NOT NULL DEFAULT '';
ALTER TABLE dead ADD COLUMN node TEXT NOT NULL DEFAULT '';
"""
BROADCASTS = """
-- who hears broadcasts, and until when (epoch seconds) unless it says so again; what was broadcast lately
CREATE TABLE listeners (id INTEGER PRIMARY KEY AUTOINCREMENT, exchange TEXT NOT NULL, kind TEXT NOT NULL,
    pattern TEXT NOT NULL, expires REAL NOT NULL);
CREATE TABLE broadcasts (id INTEGER PRIMARY KEY AUTOINCREMENT, exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL, at REAL NOT NULL, blob BLOB NOT NULL);
CREATE INDEX broadcasts_by_exchange ON broadcasts (exchange, id);
"""
ROUNDS = """
-- what a message takes turns by, see `celeriac.rounds`; those that do wait in `keyed` instead of `ready`
ALTER TABLE messages ADD COLUMN fair_key TEXT;
CREATE TABLE keyed (queue TEXT, rank INTEGER, round INTEGER, id INTEGER, handed INTEGER NOT NULL,
    flags INTEGER NOT NULL, PRIMARY KEY (queue, rank, round, id)) WITHOUT ROWID;
-- now: the round under way; plain: that of the last message without a key, NULL when none is known
CREATE TABLE lines (queue TEXT, rank INTEGER, now INTEGER NOT NULL, plain INTEGER,
    PRIMARY KEY (queue, rank)) WITHOUT ROWID;
-- last: that of the last message of a key; forgotten when it is over
CREATE TABLE rounds (queue TEXT, rank INTEGER, key TEXT, last INTEGER NOT NULL,
    PRIMARY KEY (queue, rank, key)) WITHOUT ROWID;
CREATE INDEX rounds_by_last ON rounds (queue, rank, last);
"""
EXPIRY = """
CREATE INDEX groups_by_expiry ON groups (expires) WHERE expires IS NOT NULL;
CREATE INDEX claims_by_expiry ON claims (expires) WHERE expires IS NOT NULL;
"""
_CHANGES = {
    0: SCHEMA + BROADCASTS + ROUNDS + EXPIRY,
    1: FROM_VERSION_1 + FROM_VERSION_2 + BROADCASTS + ROUNDS + EXPIRY,
    2: FROM_VERSION_2 + BROADCASTS + ROUNDS + EXPIRY,
    3: BROADCASTS + ROUNDS + EXPIRY,
    4: ROUNDS + EXPIRY,
    5: EXPIRY,
}

READ_SECONDS = 5.0
LOG_BYTES = 64 << 20  # a log that a burst made longer is cut to this
RESERVE_BYTES = 8 << 20  # settling has to write before space comes free: a log, and what it goes into
SPARE_PAGES = 2048  # free pages (8 MB) that a file keeps for the next burst
PAGES_AT_ONCE = 512  # given back in one transaction, some 5 ms
SYNCHRONOUS = ("off", "normal", "full", "extra")
_UNNAMED = "default"


class FileOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What ``broker_transport_options`` or the URL's query can say."""

    synchronous: str = "full"  # of publishing: full = on the disk when `delay` returns
    busy_timeout: float = 30.0  # seconds that a worker waits for the file's lock
    reserve_bytes: int = RESERVE_BYTES  # of the disk that publishing leaves for workers to go on with
    dead_letter_limit: int = MOST_LETTERS  # per queue; the oldest go first
    poll_seconds: float = 1.0  # how often those who wait look by themselves, should no bell reach them


class Location(msgspec.Struct, frozen=True):
    """Where the file is."""

    path: Path
    ours: bool = False  # in the user's state directory, which is made when missing

    @property
    def bells(self) -> Path:
        """Return the directory for the doorbells of those who wait for something in the file."""
        return self.path.with_name(self.path.name + "-bells")


def locate(url: Url, app_name: str | None) -> Location:
    """Return the file that a ``sqlite://`` URL means.

    Args:
        url: ``sqlite://`` is a file of the app's in the user's state directory, ``sqlite:///x.db`` is
            relative to the working directory, ``sqlite:////var/x.db`` is absolute.
        app_name: The app's name.

    Raises:
        ConfigError: The URL names a host or no file at all.
    """
    if url.host:
        raise ConfigError(
            f"broker_url 'sqlite://{url.host}…' names a host; a file has three slashes "
            "(sqlite:///relative.db) or four (sqlite:////absolute.db)."
        )
    if url.path:
        return Location(Path(url.path).absolute())
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    name = re.sub(r"[^\w.+-]", "_", app_name or _UNNAMED).lstrip(".") or _UNNAMED
    return Location(Path(state).expanduser() / "celeriac" / f"{name}.sqlite3", ours=True)


def file_options(url: Url, options: Mapping[str, Any]) -> FileOptions:  # Any: transport options
    """Return the options of a file: the URL's query first, then the transport options.

    Raises:
        ConfigError: One has a value that cannot be.
    """
    named = {name: options[name] for name in FileOptions.__struct_fields__ if options.get(name) is not None}
    named.update({name: value for name, value in url.query.items() if name in FileOptions.__struct_fields__})
    try:
        found = msgspec.convert(named, FileOptions, strict=False)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"broker_transport_options of the SQLite broker: {exc}.") from exc
    found = msgspec.structs.replace(found, synchronous=found.synchronous.lower())
    if found.synchronous not in SYNCHRONOUS:
        raise ConfigError(
            f"broker_transport_options: synchronous={found.synchronous!r} is none of "
            f"{', '.join(SYNCHRONOUS)}."
        )
    return found


class Journal:
    """The file's write-ahead log, forced to the disk outside of the file's lock.

    SQLite's own ``synchronous=FULL`` does the same, but before it lets go of the lock: others wait for our
    disk, and whoever waits for a message sees it only then. So commits are made without, and synced here
    by those who promise durability. One sync does for all commits that were made before it began.

    Args:
        path: The database file.
    """

    def __init__(self, path: Path) -> None:
        self.lock: threading.RLock = threading.RLock()
        self._path = path.with_name(path.name + "-wal")
        self._fd: int | None = None
        self._synced = 0

    def sync(self, commit: int, newest: Callable[[], int]) -> None:
        """Return when a commit is on the disk.

        Args:
            commit: Its number.
            newest: Returns the number of the newest commit by then.

        Raises:
            OSError: The disk refused.
        """
        with self.lock:
            if self._synced >= commit:
                return
            upto = newest()
            if self._fd is None:
                try:
                    self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:  # the last connection was closed: all is in the database and synced
                    return
            _fdatasync(self._fd)
            self._synced = upto

    def close(self) -> None:
        """Let go of the log: its file may be another one when the database is opened again."""
        with self.lock:
            fd, self._fd = self._fd, None
            if fd is not None:
                os.close(fd)


_fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS has the latter only
_lines: set[_Line] = set()  # of all handles; also of one that is being collected, until it is closed
_adding = ForkLock()  # no thread may add another line while the others are closed for a fork
_held: list[_Line] = []


class _Line:
    """What a fork has to find of a handle, even of one that nobody knows any more and that is being closed.

    A connection that is open anywhere in the process at that moment, or half closed, leaves SQLite in the
    child with locks that it does not have: it would read and write what others are writing.
    """

    def __init__(self, journal: Journal) -> None:
        self.lock: threading.RLock = threading.RLock()
        self.journal: Journal = journal
        self.connection: sqlite3.Connection | None = None
        self._ended = False
        with _adding:
            _lines.add(self)

    def close(self) -> None:
        """Close the connection."""
        with self.lock:
            self.journal.close()
            connection, self.connection = self.connection, None
            if connection is not None:
                connection.close()

    def end(self) -> None:
        """Close it for good, without waiting: whoever lets go of a handle may hold what a fork waits for."""
        self._ended = True
        if self.lock.acquire(blocking=False):
            try:
                self.close()
            finally:
                self.lock.release()
            _lines.discard(self)  # else it is closed already: a fork has it, and sees to this afterwards

    def before_fork(self) -> None:
        """Wait for the running call and close: no connection may cross a fork."""
        self.lock.acquire()
        self.journal.lock.acquire()
        self.close()

    def after_fork(self) -> None:
        """Let calls run again, in the parent and in the child."""
        self.journal.lock.release()
        self.lock.release()
        if self._ended:
            _lines.discard(self)


class Handle:
    """One connection, safe for threads, opened when first used and again when lost.

    SQLite forbids to carry a connection across a fork, even to open another one beside it in the child. So
    it is closed before a fork, once no call is running, and opened again where it is used next.

    Args:
        location: The file.
        synchronous: off or normal (the disk may lag), or full: then `sync` waits for the disk.
        unreachable: Makes the error for a file that cannot be opened.
        failed: Makes the error for everything else.
    """

    def __init__(
        self,
        location: Location,
        *,
        synchronous: str,
        unreachable: Callable[[str], CeleriacError],
        failed: Callable[[str], CeleriacError],
    ) -> None:
        self.path: Path = location.path
        self._ours = location.ours
        self.commits: int = 0  # made by this handle; read it while nobody else can write
        self._durable = synchronous in ("full", "extra")
        self._synchronous = "normal" if self._durable else synchronous
        self._line = _Line(Journal(location.path))
        self._lock: threading.RLock = self._line.lock
        self._unreachable = unreachable
        self._failed = failed
        self._inode = 0
        weakref.finalize(self, self._line.end).atexit = False

    def write(self, work: Callable[[sqlite3.Connection], T], seconds: float) -> T:
        """Run the work in a transaction of its own and commit it.

        Args:
            work: Called with the connection; when it raises, nothing of what it did is kept.
            seconds: How long to wait for the file's lock.

        Raises:
            TimeoutError: (builtin) somebody else had the lock all the time; nothing was written.
        """
        give_up_at = time.monotonic() + seconds
        if not self._lock.acquire(timeout=max(0.0, seconds)):
            raise TimeoutError(f"{self.path}: another thread was writing for {seconds:g} s.")
        try:
            connection = self._open(give_up_at)
            try:
                _begin(connection, give_up_at)
                result = work(connection)
                connection.execute("COMMIT")
                self.commits += 1
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result
        except sqlite3.Error as exc:
            raise self._translated(exc) from exc
        finally:
            self._lock.release()

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run the work without waiting for writers; every statement sees the newest commit."""
        give_up_at = time.monotonic() + READ_SECONDS
        with self._lock:
            while True:
                try:
                    return work(self._open(give_up_at))
                except sqlite3.Error as exc:
                    # Only while another process closes the file as its last user, or mends it after a crash.
                    if not _is_busy(exc) or time.monotonic() >= give_up_at:
                        raise self._translated(exc) from exc
                time.sleep(0.002)

    def sync(self, commit: int) -> None:
        """Return when a commit is on the disk, where the handle promises that; other threads go on."""
        if not self._durable:
            return
        try:
            self._line.journal.sync(commit, lambda: self.commits)
        except OSError as exc:
            raise self._failed(f"The file {self.path} was not written to the disk: {exc}.") from exc

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        self._line.close()

    def reopen_if_replaced(self) -> bool:
        """Open anew when the file was removed or another one put in its place; return whether it was."""
        with self._lock:
            try:
                inode = os.stat(self.path).st_ino
            except OSError:  # it or its folder is gone, or no folder any more
                inode = -1
            replaced = self._line.connection is not None and inode != self._inode
            if replaced:
                self.close()
            return replaced

    def free_bytes(self) -> int:
        """Return how much room the disk has for us; a lot where that cannot be asked."""
        try:
            found = os.statvfs(self.path.parent)
        except OSError:
            return sys.maxsize
        return found.f_bavail * found.f_frsize

    def exclusively(self, seconds: float) -> bool:
        """Keep other threads out until `release`; False when they did not make room in time."""
        return self._lock.acquire(timeout=max(0.0, seconds))

    def release(self) -> None:
        """Let other threads in again."""
        self._lock.release()

    def _open(self, give_up_at: float) -> sqlite3.Connection:
        if self._line.connection is not None:
            return self._line.connection
        try:
            if self._ours:
                self._make_folder()
            connection, has_log = _connect(self.path, self._synchronous, give_up_at)
            if self._durable and not has_log:  # a file system without shared memory
                connection.execute("PRAGMA synchronous = FULL")
            self._inode = os.stat(self.path).st_ino
        except (sqlite3.Error, OSError) as exc:
            if isinstance(exc, TimeoutError):
                raise
            raise self._unreachable(f"The file {self.path} cannot be opened: {exc}.") from exc
        self._line.connection = connection
        return connection

    def _make_folder(self) -> None:
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            error = self._unreachable(
                f"The folder {folder} cannot be made: {exc.strerror}. Let this user write there, or name "
                "another folder in XDG_STATE_HOME, or another place in broker_url and result_backend."
            )
            if isinstance(error, TransportError):
                error.retryable = False
            raise error from exc

    def _translated(self, exc: sqlite3.Error) -> CeleriacError:
        self.close()  # whatever state it is in: the next call starts afresh
        if getattr(exc, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
            return self._failed(
                f"The disk of the file {self.path} is full: nothing was written. Free some space."
            )
        return self._failed(f"The file {self.path} failed: {exc}.")


def _connect(path: Path, synchronous: str, give_up_at: float) -> tuple[sqlite3.Connection, bool]:
    """Return a connection, and whether it writes a log."""
    while True:
        connection = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
        try:
            return connection, _prepare(connection, synchronous, give_up_at)
        except sqlite3.OperationalError as exc:
            connection.close()
            # Several processes that switch a new file to WAL at once refuse each other without waiting.
            if not _is_busy(exc) or time.monotonic() >= give_up_at:
                raise
        except BaseException:
            connection.close()
            raise
        time.sleep(0.005)


def _is_busy(exc: sqlite3.Error) -> bool:
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _begin(connection: sqlite3.Connection, give_up_at: float) -> None:
    """Take the write lock; SQLite's own waiting sleeps up to 100 ms at a time, which is an age here."""
    pause = 0.000_05
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as exc:
            if not _is_busy(exc):
                raise
            if time.monotonic() >= give_up_at:
                raise TimeoutError(f"others kept the file locked ({exc})") from exc
        time.sleep(pause * (0.5 + random.random()))  # noqa: S311 - only spreads the waiters
        pause = min(pause * 1.5, 0.001)


def _prepare(connection: sqlite3.Connection, synchronous: str, give_up_at: float) -> bool:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a file that is new, before all else
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    if _version(connection) != SCHEMA_VERSION:
        _begin(connection, give_up_at)
        try:
            _upgrade(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    return bool(mode == "wal")


def unused_bytes(connection: sqlite3.Connection) -> int:
    """Return how much room there is in the file itself."""
    pages, size = (
        connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("freelist_count", "page_size")
    )
    return int(pages * size)


def give_back_space(connection: sqlite3.Connection) -> None:
    """Shorten a file that a burst has left mostly empty, a part at a time.

    Args:
        connection: In a transaction.
    """
    free, pages = (
        connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("freelist_count", "page_count")
    )
    if free > SPARE_PAGES and free > pages / 2:
        for _ in range(min(free - SPARE_PAGES, PAGES_AT_ONCE)):  # Python's driver does one step of a pragma
            connection.execute("PRAGMA incremental_vacuum(1)")


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _upgrade(connection: sqlite3.Connection) -> None:
    version = _version(connection)  # once more, now that nobody else can be at it
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"The embedded broker's file has format {version}; this version of Celeriac knows "
            f"{SCHEMA_VERSION}. Upgrade this process, or use another file."
        )
    if version < SCHEMA_VERSION:
        for statement in _CHANGES[version].split(";\n"):
            if statement.strip():
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _before_fork() -> None:
    for line in list(_lines):
        line.before_fork()
        _held.append(line)


def _after_fork() -> None:
    while _held:
        _held.pop().after_fork()


around_forks(_before_fork, _after_fork)
