"""A limit on the memory of one process, kept by the system with SIGKILL: a control group of its own."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup/memory")  # version 1, which needs no leave of the groups above
_PREFIX = "celeriac-faults-"


def limit_this_process(size_bytes: int) -> None:
    """Have this process killed when it uses more.

    Raises:
        OSError: The system has no such groups, or lets this user make none.
    """
    group = _GROUPS / f"{_PREFIX}{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(size_bytes))
    (group / "cgroup.procs").write_text(str(os.getpid()))


def forget_the_dead() -> None:
    """Remove the groups of processes that have ended; those of others refuse."""
    for group in _GROUPS.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            group.rmdir()
