"""Urgent tasks behind very many that are not."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from bench import Bench, Figures, Run, Servers

_URGENT = 20
_PAUSE_SECONDS = 0.1


def workloads(options: argparse.Namespace, servers: Servers) -> dict[str, Run]:
    """Return what to run of priorities; each broker's numbers are as Celery has them."""

    def urgent(broker: str, low: int, high: int) -> Run:
        def run(side: str, python: Path) -> Figures:
            server = servers.redis if broker == "redis" else servers.rabbit
            with Bench(python, server.fresh_url(), "", priorities=True) as bench:
                bench.client("send", kind="brief", first=0, n=options.low, options={"priority": low})
                with bench.worker():
                    return _latency(bench, options.low, high)

        return run

    return {
        "redis urgent": urgent("redis", low=9, high=0),
        "rabbitmq urgent": urgent("rabbitmq", low=0, high=9),
    }


def _latency(bench: Bench, low: int, priority: int) -> Figures:
    """Send urgent tasks while others are run and return how long they took to begin and end."""
    while not bench.ran():
        time.sleep(0.05)
    sent = bench.client(
        "send_now_and_then",
        kind="brief",
        first=low,
        n=_URGENT,
        options={"priority": priority},
        pause_seconds=_PAUSE_SECONDS,
    )
    ran = bench.wait_for(low + _URGENT)
    ended = {i: at for at, i in ran}
    behind = sum(at > sent[str(low + _URGENT - 1)] for at, i in ran if i < low)
    if not behind:
        raise RuntimeError(f"{low} tasks were too few: the last urgent one was sent when all had run.")
    took = sorted(ended[i] - sent[str(i)] for i in range(low, low + _URGENT))
    return {
        "urgent_p50_ms": statistics.median(took) * 1e3,
        "urgent_max_ms": took[-1] * 1e3,
        "left": behind,
    }
