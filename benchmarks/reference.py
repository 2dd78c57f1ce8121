"""How long the work of a CPU task takes without any queue."""

import multiprocessing
import statistics
import time
from typing import Any

from marks import burn

_start: Any = None  # Any: a barrier; its type is private


def reference(n: int, processes: int) -> dict[str, float]:
    """Compute n times in each of so many processes, at once, and say how long one takes, and how much CPU."""
    forking = multiprocessing.get_context("fork")
    with forking.Pool(processes, _arm, (forking.Barrier(processes),)) as pool:
        took = pool.map(_burn_all, [n] * processes, chunksize=1)
    wall, cpu = (statistics.mean(seconds) / n * 1e3 for seconds in zip(*took, strict=True))
    return {"burn_ms": wall, "burn_cpu_ms": cpu}


def _arm(start: Any) -> None:
    global _start
    _start = start


def _burn_all(n: int) -> tuple[float, float]:
    for _ in range(20):
        burn()
    _start.wait()
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(n):
        burn()
    return time.perf_counter() - began, time.process_time() - cpu
