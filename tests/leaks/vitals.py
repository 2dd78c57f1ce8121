"""What processes hold: memory, descriptors, threads and connections."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Measure = Literal["memory", "descriptors", "threads", "connections"]
MEASURES: Final[tuple[Measure, ...]] = ("memory", "descriptors", "threads", "connections")

_PROC = Path("/proc")
_INODE_COLUMN = 9  # of /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process held at a moment.

    Attributes:
        process: Its name.
        done: How many calls had ended by then.
        held: By measure; memory is the resident set in bytes.
    """

    process: str
    done: int
    held: dict[Measure, int]


class Census:
    """Looks at a client, and at a worker with all of its processes.

    A process keeps the name that it got when it was first seen; one that takes its place gets another.
    It reads what Linux tells: libraries that do so list all processes, or all sockets once for each process,
    and looking may not cost more than what is looked at.

    Args:
        client: The client's process id.
        worker: That of the worker's main process.
    """

    def __init__(self, client: int, worker: int) -> None:
        self._names = {client: "client", worker: "node"}
        self._client, self._node = client, worker
        self._born = 0

    def take(self, done: int) -> list[Sample]:
        """Return a sample of each process that there is; one that ends meanwhile is left out."""
        connections = _connections()
        samples = []
        for pid in (self._client, self._node, *self._below()):
            try:
                samples.append(Sample(self._names[pid], done, _held(pid, connections)))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return samples

    def _below(self) -> Iterator[int]:
        """Yield the worker's other processes: the forker, and under it those that run tasks."""
        for forker in _children(self._node):
            self._names.setdefault(forker, "forker")
            yield forker
            for child in _children(forker):
                if child not in self._names:
                    self._born += 1
                    self._names[child] = f"child {self._born}"
                yield child


def _held(pid: int, connections: set[str]) -> dict[Measure, int]:
    status = (_PROC / f"{pid}/status").read_text()
    found = dict(re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.MULTILINE))
    if "VmRSS" not in found:
        raise ProcessLookupError(f"process {pid} has ended")
    descriptors = _descriptors(pid)
    return {
        "memory": int(found["VmRSS"]) * 1024,
        "descriptors": len(descriptors),
        "threads": int(found["Threads"]),
        "connections": sum(target in connections for target in descriptors),
    }


def _descriptors(pid: int) -> list[str]:
    """Return what each of a process's descriptors is of; of one that is closed just now, nothing."""
    targets = []
    for descriptor in (_PROC / f"{pid}/fd").iterdir():
        try:
            targets.append(os.readlink(descriptor))
        except FileNotFoundError:
            continue
    return targets


def _connections() -> set[str]:
    """Return every TCP connection of this machine, as it is named among descriptors."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
            found.add(f"socket:[{line.split()[_INODE_COLUMN]}]")
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in (_PROC / f"{pid}/task").glob("*/children"):
        try:
            found += map(int, thread.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return sorted(found)
