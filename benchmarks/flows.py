"""Groups, chords and chains."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import tree
from bench import Bench, Figures, Run, Servers


def workloads(options: argparse.Namespace, servers: Servers) -> dict[str, Run]:
    """Return what to run of workflows and their results."""
    redis = servers.redis

    def redis_group(side: str, python: Path) -> Figures:
        url = redis.fresh_url()
        with Bench(python, url, url) as bench:
            return bench.client("send_group", n=options.members)

    def redis_workflow(*operations: str, n: int = options.members, only_ours: bool = False) -> Run:
        def run(side: str, python: Path) -> Figures | None:
            if only_ours and side == "celery":
                return None
            url = redis.fresh_url()
            with Bench(python, url, url) as bench, bench.worker() as process:
                figures: Figures = {}
                for operation in operations:
                    try:
                        figures |= bench.client(operation, n=n)
                    except subprocess.CalledProcessError:
                        if side != "celery":
                            raise
                        return None  # what Celery does not finish is no figure
                memory = {
                    "worker_pss_mb": tree.pss_kib(process.pid) / 1024,
                    "worker_peak_mb": tree.peak_kib(process.pid) / 1024,
                }
                return {**figures, **memory}

        return run

    return {
        "redis group": redis_group,
        "redis join": redis_workflow("run_group", "join"),
        "redis chord": redis_workflow("run_chord"),
        # Celery does not end ten thousand in the time that a run has.
        "redis wide chord": redis_workflow("run_chord", n=options.wide, only_ours=True),
        "redis chain": redis_workflow("run_chain", n=options.links),
    }
