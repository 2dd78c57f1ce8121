"""What a process does, and what memory it has."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from itertools import count
from typing import Any, Final, TextIO

from celery.local import try_import

__all__ = ("blockdetection", "cry", "humanbytes", "mem_rss", "memdump", "ps", "sample", "sample_mem")

UNITS: Final = ((2**40.0, "TB"), (2**30.0, "GB"), (2**20.0, "MB"), (2**10.0, "KB"), (0.0, "b"))

_samples: list[str | None] = []


@contextmanager
def blockdetection(timeout: float) -> Iterator[None]:
    """Raise RuntimeError where a block takes longer than some seconds; in the main thread only."""

    def blocked(signum: int, frame: Any) -> None:
        where = traceback.format_stack(frame)[-1].strip()
        raise RuntimeError(f"blocking detection timed out after {timeout} s, at: {where}")

    if not timeout:
        yield
        return
    before = signal.signal(signal.SIGALRM, blocked)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def cry(out: TextIO | None = None, sepchr: str = "=", seplen: int = 49) -> str | None:
    """Write the stack of every thread; return it when there is nothing to write to.

    Args:
        out: Where to.
        sepchr: What lines are drawn with.
        seplen: How long they are.
    """
    target = out if out is not None else StringIO()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    line = sepchr * seplen
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame))
        target.write(f"{names.get(ident, ident)}\n{line}\n{stack}{line}\n\n")
    return target.getvalue() if isinstance(target, StringIO) and out is None else None


def sample(x: Sequence[Any], n: int, k: int = 0) -> Iterator[Any]:
    """Yield ``n`` items of a sequence, evenly apart, and its last."""
    step = max(len(x) // n, 1)
    for _ in range(n):
        if k >= len(x):
            return
        yield x[k]
        k += step
    yield x[-1]


def hfloat(f: float, p: int = 5) -> str:
    """Return a number with so many digits."""
    return f"{f:.{p}g}"


def humanbytes(s: float) -> str | None:
    """Return bytes in a unit that fits: ``9.5367MB``."""
    return next((f"{hfloat(s / size if size else s)}{unit}" for size, unit in UNITS if s >= size), None)


def ps() -> Any:  # Any: psutil's process, or None without psutil
    """Return this process as psutil has it; None without psutil."""
    psutil = try_import("psutil")
    return None if psutil is None else psutil.Process()


def mem_rss() -> str | None:
    """Return the memory of this process; None without psutil."""
    process = ps()
    return None if process is None else humanbytes(process.memory_info().rss)


def sample_mem() -> str | None:
    """Note the memory of this process, and return it."""
    now = mem_rss()
    _samples.append(now)
    return now


def memdump(samples: int = 10, file: TextIO | None = None) -> None:
    """Print some of the notes of `sample_mem`, and what memory there is now."""
    if ps() is None:
        print("- rss: (psutil not installed).", file=file)
        return
    before, after = list(_samples), mem_rss()
    _samples.clear()
    if before:
        for number, one in zip(count(1), sample(before, samples), strict=False):
            print(f"- rss (sample {number}): {one}", file=file)
    print(f"- rss (end): {after}.", file=file)
