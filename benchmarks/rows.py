"""The table: what is shown of each workload."""

from __future__ import annotations

import statistics

from bench import Figures
from rich.console import Console
from rich.table import Table

ROWS = [  # workload, figure, label, goal
    ("redis drain, results", "drain_per_s", "tasks/s", "≥ 20x"),
    ("redis drain, results", "worker_cpu_us", "worker CPU µs/task", ""),
    ("redis drain, results", "delay_per_s", "delay()/s", "≥ 5x"),
    ("redis drain, no results", "drain_per_s", "tasks/s", ""),
    ("redis drain, events", "drain_per_s", "tasks/s with -E", "≥ 80 % of that without"),
    ("redis drain, events", "worker_cpu_us", "worker CPU µs/task with -E", ""),
    ("redis drain, events heard", "drain_per_s", "tasks/s with -E and a listener", ""),
    ("redis drain, events heard", "worker_cpu_us", "worker CPU µs/task", ""),
    ("redis drain, events heard", "events", "task events that it heard", "3 per task"),
    ("redis drain, events heard", "listener_cpu_us", "listener CPU µs/task", ""),
    ("redis round trip", "rtt_p50_ms", "delay().get() p50 ms", "≤ 0.5 ms"),
    ("redis round trip", "rtt_p99_ms", "delay().get() p99 ms", ""),
    ("rabbitmq drain, confirms off", "drain_per_s", "tasks/s", "≥ 4x"),
    ("rabbitmq drain, confirms off", "delay_per_s", "delay()/s", ""),
    ("rabbitmq drain, confirms on", "drain_per_s", "tasks/s", "≥ 4x"),
    ("rabbitmq drain, confirms on", "delay_per_s", "delay()/s", ""),
    ("sqlite drain, results", "drain_per_s", "tasks/s", "≥ 10,000/s"),
    ("sqlite drain, results", "delay_per_s", "delay()/s", ""),
    ("sqlite drain, no results", "drain_per_s", "tasks/s", "≥ 10,000/s"),
    ("redis group", "group_s", "group of members sent, s", "≤ 0.3 s"),
    ("redis group", "group_cpu_us", "client CPU µs/member", ""),
    ("redis join", "join_s", "members' results fetched, s", "≤ 0.5 s"),
    ("redis chord", "chord_s", "chord to its body's result, s", "≤ 4 s"),
    ("redis chord", "worker_pss_mb", "worker's memory after it (PSS), MB", ""),
    ("redis wide chord", "chord_s", "chord of 100,000 to its body's result, s", ""),
    ("redis wide chord", "client_peak_mb", "client's peak memory (RSS), MB", "< 150 MB"),
    ("redis wide chord", "worker_peak_mb", "peak of the worker's largest process, MB", "< 150 MB"),
    ("redis chain", "chain_s", "chain to its result, s", ""),
    ("redis etas", "sent_per_s", "apply_async(countdown)/s", ""),
    ("redis etas", "accepted_s", "start to the first tasks behind 100,000 ETAs, s", ""),
    ("redis etas", "worker_pss_mb", "worker's memory with them (PSS), MB", "≤ 20 MB above idle"),
    ("redis etas", "worker_peak_mb", "peak of the worker's largest process, MB", ""),
    ("redis etas, Celery's client", "accepted_s", "start to the first tasks behind 100,000 ETAs, s", ""),
    ("redis etas, Celery's client", "worker_pss_mb", "worker's memory with them (PSS), MB", ""),
    ("redis etas, Celery's client", "worker_peak_mb", "peak of the worker's largest process, MB", ""),
    ("redis sleeps, gevent", "sleeps_s", "2,000 sleeps of 50 ms in 100 slots, s", "ideal 1.00 s"),
    ("redis sleeps, gevent", "pss_mb", "worker's memory (PSS), MB", ""),
    ("redis sleeps, threads", "sleeps_s", "2,000 sleeps of 50 ms in 100 slots, s", "ideal 1.00 s"),
    ("redis sleeps, threads", "pss_mb", "worker's memory (PSS), MB", ""),
    ("redis sleeps, asyncio", "sleeps_s", "2,000 sleeps of 50 ms in 100 slots, s", "ideal 1.00 s"),
    ("redis sleeps, asyncio", "pss_mb", "worker's memory (PSS), MB", ""),
    ("redis burns", "efficiency", "2,000 CPU tasks of 5 ms, share of ideal", "1.00 is ideal"),
    ("redis burns", "beside_us", "worker CPU beside the task, its start included, µs", ""),
    ("redis urgent", "urgent_p50_ms", "urgent task behind 10,000 low ones, p50 ms", ""),
    ("redis urgent", "urgent_max_ms", "the slowest of 20, ms", ""),
    ("rabbitmq urgent", "urgent_p50_ms", "urgent task behind 10,000 low ones, p50 ms", ""),
    ("rabbitmq urgent", "urgent_max_ms", "the slowest of 20, ms", ""),
    ("start", "start_s", "start to first task, s", "≤ 0.5 s"),
    ("start", "pss_mb", "idle memory (PSS), MB", "≤ half"),
]


def show(console: Console, figures: dict[tuple[str, str], list[Figures]], peers: dict[str, str]) -> None:
    """Print medians and the median of the rounds' ratios.

    Args:
        console: Where to.
        figures: Those of each run, by workload and side.
        peers: Names of the peers by workload.
    """
    table = Table(title="Medians; ratio: Celeriac over Celery, the median of the rounds")
    for heading in ("workload", "figure", "Celery", "Celeriac", "ratio", "peer", "goal"):
        table.add_column(
            heading, justify="left" if heading in ("workload", "figure", "peer", "goal") else "right"
        )
    for workload, figure, label, goal in ROWS:
        theirs = [one[figure] for one in figures.get((workload, "celery"), [])]
        ours = [one[figure] for one in figures.get((workload, "celeriac"), [])]
        if ours:
            ratio = (
                f"{statistics.median(o / t for o, t in zip(ours, theirs, strict=True)):.2f}"
                if len(theirs) == len(ours)
                else "-"
            )
            others = [one[figure] for one in figures.get((workload, "peer"), [])]
            peer = f"{_median(others)} {peers[workload]}" if others else ""
            table.add_row(workload, label, _median(theirs), _median(ours), ratio, peer, goal)
    console.print(table)


def _median(values: list[float]) -> str:
    if not values:
        return "-"
    value = statistics.median(values)
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
