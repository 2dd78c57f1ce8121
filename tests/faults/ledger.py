"""What really happened, written down outside of the system under test.

Clients write what they are about to send and what became of that; tasks write when they begin and when they
are done. Each line is on the disk before the writer goes on, so that no kill takes it back. Only the standard
library: tasks of real Celery write it, too.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

What = Literal[
    "intent",  # a client is about to send this call, once more when it is there twice
    "confirmed",  # the sending has returned
    "refused",  # the sending has raised: the call may have arrived or not
    "start",  # a run has begun
    "end",  # a run is done
    "told",  # a client was told a final state
    "fault",  # something was broken
    "mended",  # it was put right
]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line.

    Attributes:
        what: What happened.
        key: Which call, by the name that its client has given it; of a fault, its name.
        at: When, in seconds of the machine's monotonic clock.
        pid: The process that has written it.
        attempt: Which delivery of the message began this run; 0 when nobody says.
        redelivered: Whether the run was told that its message was delivered before.
        state: The final state; of what was refused, the error.
    """

    what: What
    key: str
    at: float = 0.0
    pid: int = 0
    attempt: int = 0
    redelivered: bool = False
    state: str = ""


class Ledger:
    """A file that many processes append to.

    Args:
        path: The file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def write(
        self, what: What, key: str, *, attempt: int = 0, redelivered: bool = False, state: str = ""
    ) -> None:
        """Append a line and return when it is on the disk."""
        entry = Entry(what, key, time.monotonic(), os.getpid(), attempt, redelivered, state)
        # One write: lines of several processes never mix.
        os.write(self._file, json.dumps(asdict(entry)).encode() + b"\n")
        os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Reader:
    """Reads a ledger while others write it; every call returns what is new.

    Args:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def news(self) -> list[Entry]:
        """Return the lines that were completed since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return [Entry(**json.loads(line)) for line in whole.splitlines()]


def read(path: Path) -> list[Entry]:
    """Return all that was written to a ledger, in order."""
    return Reader(path).news()


def keys(entries: Iterable[Entry], what: What) -> set[str]:
    """Return of which calls something was written."""
    return {entry.key for entry in entries if entry.what == what}
