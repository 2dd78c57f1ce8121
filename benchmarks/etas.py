"""Tasks for later: what it takes to send and to accept very many of them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import sides
import tree
from bench import Bench, Figures, Run, Servers

from redis_probe import command

_LATER_SECONDS = 3600
_ORDINARY = 10
_SETTLE_SECONDS = 10.0


def workloads(options: argparse.Namespace, servers: Servers) -> dict[str, Run]:
    """Return what to run of tasks for later: as each side's client sends them, and as Celery's does."""

    def etas(sender: Callable[[Path], Path]) -> Run:
        def run(side: str, python: Path) -> Figures:
            url = servers.redis.fresh_url()
            later = {"kind": "noop", "n": options.etas, "options": {"countdown": _LATER_SECONDS}}
            with Bench(sender(python), url, "") as sending:
                figures = sending.client("send", first=_ORDINARY, **later)
                sending.client("send", kind="noop", first=0, n=_ORDINARY, options={})
            with Bench(python, url, "") as bench:
                began = time.monotonic()
                with bench.worker(abandon=True) as process:
                    ran = bench.wait_for(_ORDINARY)  # they were sent last; none of the others may have run
                    time.sleep(1)
                    figures |= {
                        "accepted_s": ran[-1][0] - began,
                        "worker_pss_mb": tree.pss_kib(process.pid) / 1024,
                        "worker_peak_mb": tree.peak_kib(process.pid) / 1024,
                    }
                    _insist_on(options.etas, url)
            return figures

        return run

    return {
        "redis etas": etas(lambda python: python),
        "redis etas, Celery's client": etas(lambda python: sides.celery()),
    }


def _insist_on(n: int, url: str) -> None:
    """Insist that the broker still has each of them once: queued, in a worker's hands, or parked."""
    limit = time.monotonic() + _SETTLE_SECONDS
    while True:
        queued = command(url, "LLEN", "celery")
        held = command(url, "HLEN", "unacked")
        parked = command(url, "ZCARD", "celeriac.parked:celery")
        if queued + held + parked == n:
            return
        if time.monotonic() > limit:
            raise RuntimeError(
                f"{n} tasks are for later; of these the broker has {queued} queued, {held} in a worker's "
                f"hands and {parked} parked."
            )
        time.sleep(0.1)
