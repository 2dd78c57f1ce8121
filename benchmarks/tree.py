"""What a process and all that come of it use, as the kernel tells it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def members(pid: int) -> list[int]:
    """Return a process and all that come of it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        queue += children.get(found[-1], [])
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time of all the processes so far."""
    return sum(map(own_cpu_seconds, members(pid)))


def own_cpu_seconds(pid: int) -> float:
    """Return the processor time of this one."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_kib(pid: int) -> int:
    """Return the memory that all the processes have now, what they share counted once (PSS)."""
    total = 0
    for member in members(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def peak_kib(pid: int) -> int:
    """Return the most memory that any of the processes has had so far (RSS)."""
    statuses = [Path(f"/proc/{member}/status").read_text() for member in members(pid)]
    return max(int(status.partition("VmHWM:")[2].split()[0]) for status in statuses)
