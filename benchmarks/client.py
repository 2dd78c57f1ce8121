"""Runs inside one side's environment: ``client.py OPERATION JSON``; prints one JSON line."""

import collections
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import program
from reference import reference

from celery import chain, chord, group

IDS = Path(os.environ.get("BENCH_MARKS", "/dev/shm"), "ids.json")


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


def send(kind: str, first: int, n: int, options: dict[str, Any]) -> dict[str, float]:
    """Send n tasks with these options and say how fast that was."""
    task = getattr(program, kind)
    began = time.monotonic()
    for i in range(first, first + n):
        task.apply_async((i,), **options)
    return {"sent_per_s": n / (time.monotonic() - began)}


def send_now_and_then(
    kind: str, first: int, n: int, options: dict[str, Any], pause_seconds: float
) -> dict[str, float]:
    """Send n tasks with these options and say when each was sent, by its id."""
    task = getattr(program, kind)
    task.apply_async((-1,), **options)  # connects
    at = {}
    for i in range(first, first + n):
        time.sleep(pause_seconds)
        at[str(i)] = time.monotonic()
        task.apply_async((i,), **options)
    return at


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


def hear(n: int) -> dict[str, float]:
    """Listen to events until n tasks have succeeded, and say how many came and what it took to hear them."""
    ended = 0
    counts: collections.Counter[str] = collections.Counter()

    def note(event: dict[str, Any]) -> None:
        nonlocal ended
        counts[event["type"]] += 1
        ended += event["type"] == "task-succeeded"
        if ended == n:
            receiver.should_stop = True

    cpu = time.process_time()
    with program.app.connection() as connection:
        receiver = program.app.events.Receiver(connection, handlers={"*": note})
        receiver.capture(limit=None, timeout=None, wakeup=False)
    events = sum(count for kind, count in counts.items() if kind.startswith("task-"))
    return {"events": events, "listener_cpu_us": (time.process_time() - cpu) / n * 1e6}


def send_group(n: int) -> dict[str, float]:
    """Send a group, which nobody runs: how long that takes."""
    program.increased.delay(-1)  # connects
    members = group(program.increased.s(i) for i in range(n))
    began, cpu = time.perf_counter(), time.process_time()
    sent = members.apply_async()
    figures = {"group_s": time.perf_counter() - began, "group_cpu_us": (time.process_time() - cpu) / n * 1e6}
    assert len({result.id for result in sent}) == n
    return figures


def run_group(n: int) -> dict[str, float]:
    """Run a group and keep the ids for `join`, which is a process of its own: Celery caches results."""
    sent = group(program.increased.s(i) for i in range(n)).apply_async()
    for result in sent:
        result.get(timeout=300)
    IDS.write_text(json.dumps([result.id for result in sent]))
    return {}


def join(n: int) -> dict[str, float]:
    """Fetch the results of a group that has run: how long that takes, with connecting."""
    ids = json.loads(IDS.read_text())
    results = program.app.GroupResult("joined", [program.app.AsyncResult(id) for id in ids])
    began = time.perf_counter()
    values = results.join(timeout=300)
    took = time.perf_counter() - began
    assert values == list(range(1, n + 1)), "join returned other values"
    return {"join_s": took}


def run_chord(n: int) -> dict[str, float]:
    """Run a chord: how long from sending it to the result of its body."""
    program.increased.delay(-1).get(timeout=60)
    began = time.perf_counter()
    value = (
        chord((program.increased.s(i) for i in range(n)), program.summed.s()).apply_async().get(timeout=500)
    )
    took = time.perf_counter() - began
    assert value == [n, n * (n + 1) // 2], f"the body got {value}"
    return {"chord_s": took, "client_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def run_chain(n: int) -> dict[str, float]:
    """Make and run a chain: how long from making it to its result."""
    program.increased.delay(-1).get(timeout=60)
    began = time.perf_counter()
    value = chain(*[program.increased.s() for _ in range(n)]).apply_async((0,)).get(timeout=500)
    took = time.perf_counter() - began
    assert value == n, f"the chain ended in {value}"
    return {"chain_s": took, "link_ms": took / n * 1e3}


OPERATIONS: dict[str, Any] = {
    operation.__name__: operation
    for operation in (
        fill,
        hear,
        send,
        send_now_and_then,
        reference,
        round_trips,
        send_group,
        run_group,
        join,
        run_chord,
        run_chain,
    )
}

if __name__ == "__main__":
    print(json.dumps(OPERATIONS[sys.argv[1]](**json.loads(sys.argv[2]))))
