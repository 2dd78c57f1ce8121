"""Runs the fault table, shows how far it is, and writes the page about it.

Run as ``python -m faults.run`` with ``tests`` on the path; `make faults` does.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from faults.brokers import Servers
from faults.page import written
from faults.play import Played, play
from faults.table import Case, cases, sample
from processes import ROOT

PAGE = ROOT / "docs" / "reliability.md"


def main() -> int:
    """Run what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument(
        "pattern", nargs="?", default="", help="run the cases whose names match, write no page"
    )
    parser.add_argument("--seeds", type=int, default=2, help="how often each case is run")
    parser.add_argument("--most", type=int, help="run so many of the cases only, of all rows alike")
    parser.add_argument("--lanes", type=int, default=2, help="how many run at once, on servers of their own")
    arguments = parser.parse_args()
    wanted = [case for case in cases(arguments.seeds) if re.search(arguments.pattern, str(case))]
    if arguments.most is not None:
        wanted = sample(wanted, arguments.most, seed=1)
    played = _run(wanted, arguments.lanes)
    bad = [one for one in played if one.problems]
    if not arguments.pattern:
        PAGE.write_text(written(played))
    print(f"{len(played)} runs, {len(bad)} broke a promise")
    return 1 if bad else 0


def _run(wanted: Sequence[Case], lanes: int) -> list[Played]:
    todo: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in wanted:
        todo.put(case)
    played: list[Played] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("faults", total=len(wanted))

        def work() -> None:
            servers = Servers()
            try:
                while True:
                    try:
                        case = todo.get_nowait()
                    except queue.Empty:
                        return
                    one = _play(case, servers)
                    played.append(one)
                    progress.advance(bar)
                    if not console.is_terminal:
                        print(
                            f"{len(played)}/{len(wanted)} {case} {one.seconds:.1f} s: {one.findings}",
                            flush=True,
                        )
                    for problem in one.problems:
                        progress.console.print(f"{case}: {problem[:400]}", style="red", markup=False)
            finally:
                servers.stop()

        threads = [threading.Thread(target=work, name=f"lane-{number}") for number in range(lanes)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            with contextlib.suppress(queue.Empty):
                while True:  # what is under way is seen through, and its servers are stopped
                    todo.get_nowait()
            raise
    return played


def _play(case: Case, servers: Servers) -> Played:
    folder = Path(tempfile.mkdtemp(prefix="celeriac-faults-"))
    try:
        one = play(case, servers, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if one.problems:
        story = Path(tempfile.gettempdir()) / f"celeriac-{case}.txt"
        story.write_text("\n".join([*one.problems, one.story]))
    return one


if __name__ == "__main__":
    sys.exit(main())
