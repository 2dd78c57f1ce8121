"""Queues that are filled and drained, round trips, and what a start takes."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench import Bench, Figures, Run, Servers


def workloads(options: argparse.Namespace, servers: Servers) -> dict[str, Run]:
    """Return what to run of single tasks: queues that are drained, round trips, starts."""
    redis, rabbit = servers

    def redis_drain(kind: str, *worker: str) -> Run:
        def run(side: str, python: Path) -> Figures:
            url = redis.fresh_url()
            with Bench(python, url, url) as bench:
                return bench.drain(kind, options.tasks, *worker, server=redis)

        return run

    def redis_drain_heard(side: str, python: Path) -> Figures:
        url = redis.fresh_url()
        with Bench(python, url, url) as bench:
            return bench.drain_heard("noop_with_result", options.tasks, redis)

    def rabbit_drain(confirm: bool) -> Run:
        def run(side: str, python: Path) -> Figures:
            with Bench(python, rabbit.fresh_url(), "", confirm=confirm) as bench:
                return bench.drain("noop", options.tasks)

        return run

    def sqlite_drain(kind: str) -> Run:
        def run(side: str, python: Path) -> Figures | None:
            if side == "celery":
                return None  # has no embedded broker
            with tempfile.TemporaryDirectory() as folder:
                url = f"sqlite:///{folder}/bench.sqlite3"
                with Bench(python, url, url) as bench:
                    return bench.drain(kind, options.tasks)

        return run

    def redis_round_trip(side: str, python: Path) -> Figures:
        url = redis.fresh_url()
        with Bench(python, url, url) as bench, bench.worker():
            return bench.client("round_trips", n=options.round_trips)

    def start(side: str, python: Path) -> Figures:
        url = redis.fresh_url()
        with Bench(python, url, url) as bench:
            return bench.start_up()

    return {
        "redis drain, results": redis_drain("noop_with_result"),
        "redis drain, no results": redis_drain("noop"),
        "redis drain, events": redis_drain("noop_with_result", "-E"),
        "redis drain, events heard": redis_drain_heard,
        "redis round trip": redis_round_trip,
        "rabbitmq drain, confirms off": rabbit_drain(confirm=False),
        "rabbitmq drain, confirms on": rabbit_drain(confirm=True),
        "sqlite drain, results": sqlite_drain("noop_with_result"),
        "sqlite drain, no results": sqlite_drain("noop"),
        "start": start,
    }
