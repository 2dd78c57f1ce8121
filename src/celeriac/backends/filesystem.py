"""Results as files in a folder: ``file:///var/lib/results``, shared by whoever sees the folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from celeriac.backends.documents import Documents, latest
from celeriac.backends.polling import PollingListener
from celeriac.backends.shape import in_shape, shape_of
from celeriac.backends.spec import BackendSpec
from celeriac.backends.upkeep import Upkeep
from celeriac.backends.waiter import Awaited, Waiter
from celeriac.errors import BackendError, BackendUnreachable, CodecError, ConfigError
from celeriac.message import Outcome, Record
from celeriac.net.lane import Lane
from celeriac.net.url import parse
from celeriac.states import stays
from celeriac.tries import tries_from

LONGEST_NAME = 200  # bytes; file systems take 255, and a temporary name adds some

_LOCK = ".celeriac-lock"
_TEMPORARY = "."
_CHORD = "celeriac-chord-"  # a folder with these files:
_SIZE = "size"
_SHAPE = "shape"  # of a header with groups inside
_FINISHER = "finisher"  # the id of the task that completed it
_ARRIVED = "arrived"  # a byte for each part, at least
_PART = "part-"
_ADDED = "added-"  # a part that it has grown by
_CLAIM = "celeriac-claim-"


class _Part(msgspec.Struct, array_like=True):
    """The file of one finished part of a chord."""

    index: int | None
    task_id: str
    document: bytes


class FilesystemBackend(Awaited):
    """Keeps each result in a file that is named exactly like Celery's key.

    Duties: 1. write by renaming, so that a reader sees all of a document or nothing; 2. under a lock of the
    folder, so that a SUCCESS stays; 3. poll for those who wait. Files
    survive a killed process, not a power cut: they are not forced to disk.

    Args:
        spec: Its URL's path is the folder, which has to be there.

    Raises:
        ConfigError: The URL has no folder.
    """

    persistent = True
    joins_chords = True

    def __init__(self, spec: BackendSpec) -> None:
        path = parse(spec.url).path
        if not path:
            raise ConfigError(f"result_backend {spec.url!r} names no folder: use file:///the/folder.")
        self._folder = Path("/", path)
        self._expires_seconds = spec.expires_seconds
        self._chord_seconds = spec.chord_seconds
        self._documents = Documents(spec)
        self._lane = Lane("celeriac-files")
        self._pid = os.getpid()
        self._upkeep = Upkeep(spec.expires_seconds, self.cleanup)
        self._waiter = Waiter(lambda: PollingListener(self.fetch), tries_from(spec.options))

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
        """Write the records, all under one lock."""
        if not batch:
            return
        with self._locked():
            for record in latest(batch).values():
                path = self._path(self._documents.task_key(record.id))
                if not self._stays(record, path):
                    self._write(path, record.payload)
        self._upkeep.after_store()

    async def astore(self, batch: Sequence[Record]) -> None:
        """Do the same on a thread of its own."""
        if self._pid != os.getpid():  # the lane's thread stayed in the parent
            self._lane, self._pid = Lane("celeriac-files"), os.getpid()
        await self._lane.run(self.store, batch)

    def fetch(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Return what is known of the ids now."""
        found = {}
        with self._translated():
            for task_id in dict.fromkeys(ids):
                document = _read(self._path(self._documents.task_key(task_id)))
                if document is not None:
                    found[task_id] = self._documents.read(task_id, document)
        return found

    def forget(self, ids: Sequence[str]) -> None:
        """Remove what is stored of the ids."""
        with self._translated():
            for task_id in ids:
                self._path(self._documents.task_key(task_id)).unlink(missing_ok=True)

    # --- groups ---

    def save_group(self, group_id: str, result: Any) -> None:  # Any: nested result tuples
        """Keep the shape of a group's results."""
        with self._locked():
            self._write(self._path(self._documents.group_key(group_id)), self._documents.encode_group(result))

    def restore_group(self, group_id: str) -> Any | None:  # Any: nested result tuples
        """Return the shape kept by `save_group`, or None."""
        with self._translated():
            document = _read(self._path(self._documents.group_key(group_id)))
        return None if document is None else self._documents.decode_group(group_id, document)

    def delete_group(self, group_id: str) -> None:
        """Remove it."""
        with self._translated():
            self._path(self._documents.group_key(group_id)).unlink(missing_ok=True)

    # --- chords ---

    def start_chord(self, chord_id: str, size: int, members: Any) -> None:  # Any: nested result tuples
        """Note how many parts a chord has."""
        shape = shape_of(chord_id, members)
        with self._translated():
            if shape is not None:
                self._write(self._chord(chord_id) / _SHAPE, self._documents.encode_group(shape))
            self._write(self._chord(chord_id) / _SIZE, str(size).encode())

    def chord_part(self, chord_id: str, index: int | None, outcome: Outcome) -> list[Outcome] | None:
        """Note one finished part; return all of them to the one caller that completed the chord.

        A part is a file in the chord's folder. Whoever writes last sees the files of all others, and of
        those who see them all the one that writes its mark first goes on. The task that completed the chord
        gets the parts again when it is delivered again before `end_chord`: it may have died before it could
        start the body.
        """
        part = _Part(index, outcome.id, self.encode(outcome).payload)
        with self._translated():
            chord = self._chord(chord_id)
            self._write(chord / self._name(_PART + outcome.id), msgspec.msgpack.encode(part), replace=False)
            size = _read(chord / _SIZE)
            # Listing a folder takes as long as it has files: only when all can be there. A part that comes
            # again adds another byte, as its worker may have died before the first one.
            if _grown(chord / _ARRIVED) < int(size or 0) or size is None:
                return None
            files = os.listdir(chord)
            names = [name for name in files if name.startswith(_PART)]
            if len(names) < int(size) + sum(name.startswith(_ADDED) for name in files):
                return None
            self._write(chord / _FINISHER, outcome.id.encode(), replace=False)
            if _read(chord / _FINISHER) != outcome.id.encode():
                return None
            found = [msgspec.msgpack.decode((chord / name).read_bytes(), type=_Part) for name in names]
            shape = _read(chord / _SHAPE)
        ordered = sorted(found, key=lambda part: (part.index is None, part.index or 0))
        parts = [self._documents.read(part.task_id, part.document) for part in ordered]
        return (
            parts if shape is None else in_shape(self, self._documents.decode_group(chord_id, shape), parts)
        )

    def grow_chord(self, chord_id: str, task_ids: Sequence[str]) -> None:
        """Have a chord wait for more parts."""
        with self._translated():
            chord = self._chord(chord_id)
            if _read(chord / _FINISHER) is None:
                for task_id in task_ids:
                    self._write(chord / self._name(_ADDED + task_id), b"")

    def end_chord(self, chord_id: str) -> None:
        """Remove what was kept for a chord."""
        with self._translated():
            self._remove(self._path(_CHORD + chord_id))

    def claim(self, task_id: str, copy: str) -> bool:
        """Return whether this copy of a task's message is the first that claims to be run."""
        path = self._path(_CLAIM + task_id)
        with self._translated():
            self._write(path, copy.encode(), replace=False)
            first = _read(path)
        self._upkeep.after_store()
        return first == copy.encode()

    # --- the store itself ---

    def cleanup(self) -> None:
        """Remove what is older than the expiry of results; other people's files are left alone."""
        if not self._expires_seconds:
            return
        now = time.time()
        keys = (self._documents.task_key(""), self._documents.group_key(""), _CLAIM)
        limits = {
            self._names(*keys): now - self._expires_seconds,
            self._names(_CHORD): now - self._chord_seconds,  # since its last part has come
        }
        with self._translated():
            for entry in os.scandir(self._folder):
                limit = next((limit for names, limit in limits.items() if entry.name.startswith(names)), 0.0)
                with contextlib.suppress(FileNotFoundError):  # another cleanup was quicker
                    if entry.stat().st_mtime < limit:
                        self._remove(Path(entry.path))

    def close(self) -> None:
        """End the thread of `astore`."""
        if self._pid == os.getpid():
            self._lane.close()

    # --- inside ---

    def _path(self, key: str) -> Path:
        """Return the file of a key."""
        return self._folder / self._name(key)

    @staticmethod
    def _name(key: str) -> str:
        """Return the key as a file's name: ids are the users', and none may lead out of the folder."""
        name = urllib.parse.quote(key, safe=_PLAIN)
        if len(name) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME - 64]}{hashlib.sha256(key.encode()).hexdigest()}"
        return name

    def _names(self, *keys: str) -> tuple[str, ...]:
        """Return what the names of the files under keys that begin so begin with, unfinished ones too."""
        return tuple(dot + self._name(key) for dot in ("", _TEMPORARY) for key in keys)

    def _chord(self, chord_id: str) -> Path:
        """Return the folder of a chord, made when it is not there."""
        chord = self._path(_CHORD + chord_id)
        with contextlib.suppress(FileExistsError):
            chord.mkdir()
        return chord

    @staticmethod
    def _remove(path: Path) -> None:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)  # a late part may write into it meanwhile
        else:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            if self._folder.is_dir() and os.access(self._folder, os.R_OK | os.W_OK | os.X_OK):
                raise BackendError(f"The result store file://{self._folder} failed: {exc}.") from exc
            raise BackendUnreachable(
                f"The result store file://{self._folder} cannot be used: {exc.strerror}. "
                f"Make the folder, writable for this user, or mend result_backend."
            ) from exc

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the folder, which the system lets go of when a process dies."""
        with self._translated():
            lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
            finally:
                os.close(lock)

    def _write(self, path: Path, data: bytes, *, replace: bool = True) -> None:
        """Write a file all at once; without ``replace`` one that is there stays."""
        temporary = path.with_name(f"{_TEMPORARY}{path.name}.{os.getpid()}.{threading.get_ident()}")
        temporary.write_bytes(data)
        if replace:
            temporary.replace(path)
            return
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()

    def _stays(self, record: Record, path: Path) -> bool:
        """Return whether what is there is stronger than a record."""
        with contextlib.suppress(CodecError):  # what nobody can read may be overwritten
            document = _read(path)
            return document is not None and stays(
                self._documents.decode(record.id, document).state, record.state
            )
        return False


# Everything that a file's name may hold but the slash; "%" is coded, so that no two keys share a file.
_PLAIN = "".join(c for c in map(chr, range(33, 127)) if c not in "/%")


def _grown(path: Path) -> int:
    """Add a byte to a file and return how many it has; of several at once the last one sees all."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        os.write(file, b".")
        return os.fstat(file).st_size
    finally:
        os.close(file)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        return None
