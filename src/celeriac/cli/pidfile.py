"""A file that says which process runs here, and keeps a second one away."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from celeriac.cli.context import CLIContext

EX_CANTCREAT = 73  # sysexits.h; Celery's exit code when the file is locked


class PidfileLocked(Exception):
    """Raised when the file names a process that is alive."""


class Pidfile:
    """The lock of one running worker.

    What counts is the pid in the file, as service managers and Celery read it. While it is looked at or
    written the file is locked, so that of two workers that find a stale one only one takes it over.

    Args:
        path: The file; its directory must exist.
    """

    def __init__(self, path: str) -> None:
        self.path: Path = Path(path)
        self._ours = False

    def acquire(self) -> bool:
        """Write our pid into the file.

        Returns:
            Whether the file was a stale one, of a process that is dead.

        Raises:
            PidfileLocked: Another process that is alive holds it.
            OSError: The file cannot be written.
        """
        with self._opened(os.O_CREAT) as file:
            found = file.read()
            holder = _pid_in(found)
            if holder is not None and holder != os.getpid() and alive(holder):
                raise PidfileLocked(
                    f"ERROR: Pidfile ({self.path}) already exists.\n"
                    f"Seems we're already running? (pid: {holder})"
                )
            file.seek(0)
            file.truncate()
            file.write(f"{os.getpid()}\n")
        self._ours = True
        return bool(found) and holder != os.getpid()  # a worker that begins anew finds its own

    def release(self) -> None:
        """Remove the file if it is still ours."""
        if self._ours:
            self._ours = False
            try:
                with self._opened(0) as file:
                    if _pid_in(file.read()) == os.getpid():
                        self.path.unlink(missing_ok=True)
            except FileNotFoundError:
                return  # somebody has tidied up

    @contextmanager
    def _opened(self, flags: int) -> Iterator[TextIO]:
        """Open the file and lock it, and be sure that it is still the one of that name."""
        while True:
            with open(os.open(self.path, os.O_RDWR | flags, 0o644), "r+", errors="replace") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if self._is_at_its_place(file):
                    yield file
                    return

    def _is_at_its_place(self, file: TextIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False


def _pid_in(text: str) -> int | None:
    try:
        pid = int(text)
    except ValueError:
        return None
    return pid if pid > 0 else None  # to the kernel, the others mean groups of processes


def alive(pid: int) -> bool:
    """Return whether there is a process of that id."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def running_pid(path: str) -> int | None:
    """Return the id of the process that a pid file names; None when there is none, or it is dead."""
    try:
        with open(path, errors="replace") as file:
            pid = _pid_in(file.read())
    except FileNotFoundError:
        return None
    return pid if pid is not None and alive(pid) else None


def locked(obj: CLIContext, path: str | None) -> Pidfile | None:
    """Return the acquired lock of a command, or None when it wants none; leave when it cannot be had.

    Args:
        obj: Speaks to the person.
        path: The file.
    """
    if path is None:
        return None
    lock = Pidfile(path)
    try:
        if lock.acquire():
            obj.error("Stale pidfile exists - Removing it.")
    except PidfileLocked as exc:
        obj.error(str(exc))
        sys.exit(EX_CANTCREAT)
    except OSError as exc:
        obj.error(f"ERROR: Pidfile ({path}) cannot be written: {exc.strerror}.")
        sys.exit(EX_CANTCREAT)
    return lock
