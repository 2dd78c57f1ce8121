"""Runs inside one side's environment: ``client.py OPERATION JSON``; prints one JSON line."""

import json
import statistics
import sys
import time
from typing import Any

import program


def fill(kind: str, n: int) -> dict[str, float]:
    """Send n tasks one by one and say how fast that was, and how long each call took."""
    task = getattr(program, kind)
    task.delay(-1)  # connects, and is not counted
    took = []
    began = last = time.perf_counter()
    cpu = time.process_time()
    for i in range(n):
        task.delay(i)
        now = time.perf_counter()
        took.append(now - last)
        last = now
    return {
        "delay_per_s": n / (last - began),
        "delay_p50_us": statistics.median(took) * 1e6,
        "delay_cpu_us": (time.process_time() - cpu) / n * 1e6,
    }


def round_trips(n: int) -> dict[str, float]:
    """Send a task, wait for its result, and so on: the time of each."""
    for i in range(20):
        program.noop_with_result.delay(-1 - i).get(timeout=60)
    took = []
    for i in range(n):
        began = time.perf_counter()
        value = program.noop_with_result.delay(i).get(timeout=60)
        took.append(time.perf_counter() - began)
        assert value == i + 1, f"task {i} returned {value}"
    took.sort()
    return {"rtt_p50_ms": took[n // 2] * 1e3, "rtt_p99_ms": took[int(n * 0.99)] * 1e3}


OPERATIONS: dict[str, Any] = {"fill": fill, "round_trips": round_trips}

if __name__ == "__main__":
    print(json.dumps(OPERATIONS[sys.argv[1]](**json.loads(sys.argv[2]))))
