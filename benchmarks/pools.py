"""What pools are for: many tasks that wait, and tasks that keep all processors busy."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import sides
import tree
from bench import Bench, Figures, Run, Servers
from marks import SLEEP_SECONDS

SLOTS = 100  # of tasks that wait
PROCESSES = 2  # of tasks that compute
_REFERENCE_BURNS = 250


def workloads(options: argparse.Namespace, servers: Servers) -> dict[str, Run]:
    """Return what to run of pools."""

    def sleeps(kind: str, pool: str) -> Run:
        def run(side: str, python: Path) -> Figures | None:
            if pool == "asyncio" and side == "celery":
                return None  # has no pool for coroutines
            with Bench(python, servers.redis.fresh_url(), "") as bench:
                bench.client("fill", kind=kind, n=options.sleeps)
                with bench.worker("-P", pool, processes=SLOTS) as process:
                    return _slept(bench, options.sleeps, process.pid)

        return run

    def burns(side: str, python: Path) -> Figures:
        with Bench(python, servers.redis.fresh_url(), "") as bench:
            bench.client("fill", kind="burnt", n=options.burns)
            before = _reference(bench)
            with bench.worker(processes=PROCESSES) as process:
                figures = _burnt(bench, options.burns, process.pid)
            return _beside_ideal(figures, options.burns, before, _reference(bench))

    return {
        "redis sleeps, gevent": sleeps("slept", "gevent"),
        "redis sleeps, threads": sleeps("slept", "threads"),
        "redis sleeps, asyncio": sleeps("awaited", "asyncio"),
        "redis burns": burns,
    }


def peers(options: argparse.Namespace, servers: Servers) -> dict[str, tuple[str, Run]]:
    """Return the best peer of some workloads: its name, and what to run."""

    def dramatiq_sleeps(command: str) -> Run:
        def run(side: str, python: Path) -> Figures:
            url = servers.redis.fresh_url()
            with Bench(python, url, "", program="dramatiq_program.py") as bench:
                bench.client("fill", kind="slept", n=options.sleeps)
                with bench.running(_dramatiq(python, command, 1, SLOTS)) as process:
                    return _slept(bench, options.sleeps, process.pid)

        return run

    def taskiq_sleeps(side: str, python: Path) -> Figures:
        with Bench(python, servers.redis.fresh_url(), "", program="taskiq_program.py") as bench:
            bench.client("fill", kind="slept", n=options.sleeps)
            slots = ["--workers", "1", "--max-async-tasks", str(SLOTS)]
            command = ["-m", "taskiq", "worker", "taskiq_program:broker", *slots, "--log-level", "WARNING"]
            with bench.running(command) as process:
                return _slept(bench, options.sleeps, process.pid)

    def dramatiq_burns(side: str, python: Path) -> Figures:
        url = servers.redis.fresh_url()
        with Bench(python, url, "", program="dramatiq_program.py") as bench:
            bench.client("fill", kind="burnt", n=options.burns)
            before = _reference(bench)
            with bench.running(_dramatiq(python, "dramatiq", PROCESSES, 8)) as process:
                figures = _burnt(bench, options.burns, process.pid)
            return _beside_ideal(figures, options.burns, before, _reference(bench))

    return {
        "redis sleeps, gevent": ("dramatiq", dramatiq_sleeps("dramatiq-gevent")),
        "redis sleeps, threads": ("dramatiq", dramatiq_sleeps("dramatiq")),
        "redis sleeps, asyncio": ("taskiq", taskiq_sleeps),
        "redis burns": ("dramatiq", dramatiq_burns),
    }


PEERS = {"dramatiq": sides.dramatiq, "taskiq": sides.taskiq}


def _dramatiq(python: Path, command: str, processes: int, threads: int) -> list[str]:
    slots = ["-p", str(processes), "-t", str(threads)]
    return [str(python.parent / command), *slots, "--skip-logging", "dramatiq_program:broker"]


def _slept(bench: Bench, n: int, pid: int) -> Figures:
    """Wait for all and return how long it was from the first one's beginning to the last one's end."""
    ran = bench.wait_for(n)
    return {"sleeps_s": ran[-1][0] - ran[0][0] + SLEEP_SECONDS, "pss_mb": tree.pss_kib(pid) / 1024}


def _burnt(bench: Bench, n: int, pid: int) -> Figures:
    ran = bench.wait_for(n)
    return {"burns_s": ran[-1][0] - bench.first_beginning(), "worker_cpu_us": tree.cpu_seconds(pid) / n * 1e6}


def _reference(bench: Bench) -> Figures:
    return bench.client("reference", n=_REFERENCE_BURNS, processes=PROCESSES)


def _beside_ideal(figures: Figures, n: int, *references: Figures) -> Figures:
    """Return the share of the ideal: bare processes that did the same just before and after."""
    burn_ms, burn_cpu_ms = (
        statistics.mean(each[key] for each in references) for key in ("burn_ms", "burn_cpu_ms")
    )
    return {
        **figures,
        "efficiency": n * burn_ms / 1e3 / PROCESSES / figures["burns_s"],
        "burn_ms": burn_ms,
        "beside_us": figures["worker_cpu_us"] - burn_cpu_ms * 1e3,
    }
