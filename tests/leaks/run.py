"""Calls, failures, retries and reconnects under which nothing may grow; ends with a table and a verdict.

Run as ``python -m leaks.run`` with ``tests`` on the path; `make soak` does. It fails (1) when anything that a
process holds has grown after the first tenth, or when a result was wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from faults.brokers import KINDS, Broker, Kind, Servers
from leaks.growth import Growth
from leaks.vitals import MEASURES
from leaks.watch import Plan, Watched, watch

STEPS = 100
SHOWN = 10  # wrong results that are told in full

console = Console()


def soak(kind: Kind, plan: Plan, servers: Servers) -> bool:
    """Run a plan on a broker, print what was seen, and return whether all is well."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="celeriac-leaks-", ignore_cleanup_errors=True) as name,
        Progress(*columns, console=console) as progress,
    ):
        bar = progress.add_task(kind, total=plan.calls)
        broker = Broker(kind, servers, Path(name))
        try:
            watched = watch(broker, Path(name), plan, lambda done: progress.update(bar, completed=done))
        finally:
            broker.close()
    seconds = time.monotonic() - began
    title = f"{kind}, {plan.pool}: {plan.calls:,} calls in {seconds:.0f} s, {watched.cut} connections cut"
    console.print(table(title, watched.growths))
    return _told(watched)


def table(title: str, seen: list[Growth]) -> Table:
    """Return a row per process: what it held after the first tenth, and in the last."""
    made = Table(title=title)
    made.add_column("process")
    for measure in MEASURES:
        made.add_column(f"{measure}, MB" if measure == "memory" else measure, justify="right")
    for process, growths in groupby(seen, lambda growth: growth.process):
        made.add_row(process, *map(_cell, growths))
    return made


def _cell(growth: Growth) -> str:
    unit = 1_000_000 if growth.measure == "memory" else 1

    def told(value: float | None) -> str:
        return "gone" if value is None else f"{value / unit:.1f}".removesuffix(".0")

    text = f"{told(growth.early)} → {told(growth.late)}"
    return text if growth.is_flat else f"[red]{text}"


def _told(watched: Watched) -> bool:
    for line in watched.wrong[:SHOWN]:
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    if watched.refused:
        console.print(f"{watched.refused} calls were refused, and sent again")
    grown = [growth for growth in watched.growths if not growth.is_flat]
    if watched.wrong:
        console.print(f"[red]{len(watched.wrong)} results were wrong.")
    if grown:
        told = ", ".join(f"{growth.measure} of {growth.process}" for growth in grown)
        console.print(f"[red]Not flat after the first tenth: {told}.")
    else:
        console.print("[green]Flat after the first tenth.")
    return not grown and not watched.wrong


def main() -> int:
    """Run what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-n", type=int, default=200_000, help=f"how many calls; rounded down to {STEPS}s")
    parser.add_argument(
        "--servers", nargs="+", choices=KINDS, default=["sqlite", "redis", "rabbitmq"], metavar="KIND"
    )
    parser.add_argument("--pool", choices=["prefork", "threads", "solo"], default="prefork")
    parser.add_argument("--cuts", type=int, default=50, help="how often all connections are reset")
    options = parser.parse_args()
    if options.n < STEPS:
        parser.error(f"-n has to be at least {STEPS}")
    plan = Plan(options.n // STEPS * STEPS, STEPS, min(options.cuts, STEPS), options.pool)
    servers = Servers()
    try:
        results = [soak(kind, plan, servers) for kind in options.servers]
    finally:
        servers.stop()
    console.print("[green]All is well." if all(results) else "[red]Not all is well; see above.")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
