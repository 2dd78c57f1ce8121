"""Random workflows on workers that are killed all the time; ends with a table and a verdict.

``python tests/soak/run.py --help`` lists what can be chosen. It fails (1) when a result is missing or wrong,
when something was lost, or happened twice for no good reason.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from celeriac.errors import CeleriacError
from celeriac.errors import TimeoutError as ResultTimeout
from servers import RedisServer
from soak.ledger import Ledger, doubled, lost, strange
from soak.program import make
from soak.victims import Victims
from workflows.chance import Growth
from workflows.checks import failed_calls, unready
from workflows.model import Node, Verdict, interpret
from workflows.notation import described

AT_ONCE = 400  # in flight together
PATIENCE_SECONDS = 120.0  # for one workflow, at the end of all that came before it
SHOWN = 10  # findings of a kind that are told in full
FINDINGS = ("wrong", "lost", "doubled", "pending", "left over")

console = Console()


class Sent(NamedTuple):
    """A workflow that was sent."""

    key: str
    node: Node
    verdict: Verdict
    result: Any


class Soak:
    """Sends workflows to one kind of server, and judges what becomes of them.

    Args:
        url: Of the server.
        folder: For notes and logs.
        late: Whether tasks are acknowledged late.
    """

    def __init__(self, url: str, folder: Path, *, late: bool) -> None:
        self.found: Counter[str] = Counter()
        self.told: dict[str, list[str]] = {kind: [] for kind in FINDINGS}
        self.again = 0  # runs of calls that were run before
        self._late = late
        self._app, self._tasks = make(url, str(folder), late=late)
        self._ledger = Ledger(folder)

    def run(self, seeds: range, victims: Victims) -> Iterator[int]:
        """Run a workflow for each seed and yield how many have ended, while they do."""
        flying: deque[Sent] = deque()
        ended: list[Sent] = []
        for seed in seeds:
            flying.append(self._send(seed))
            if len(flying) >= AT_ONCE:
                ended.append(self._finish(flying.popleft()))
                yield len(ended)
        while flying:
            ended.append(self._finish(flying.popleft()))
            yield len(ended)
        victims.spare()
        self._settle(ended)
        self._app.close()

    def _send(self, seed: int) -> Sent:
        node = Growth(Random(seed)).workflow()
        signature = self._tasks.signature(node, str(seed))
        while True:
            try:
                return Sent(str(seed), node, interpret(node), signature.apply_async())
            except CeleriacError as exc:
                console.print(f"[yellow]{exc}")
                time.sleep(0.5)

    def _finish(self, sent: Sent) -> Sent:
        """Wait for the result of a workflow, and compare it."""
        value, error = None, None
        try:
            value = sent.result.get(timeout=PATIENCE_SECONDS)
        except ResultTimeout:
            self._tell("pending", sent, "no result")
            return sent
        except Exception as exc:  # what the workflow has failed with
            error = exc
        expected = sent.verdict.failures
        if error is not None:
            excused = not self._late and "WorkerLostError" in repr(error)
            if not excused and not expected.intersection(failed_calls(error)):
                self._tell("wrong", sent, f"failed with {error!r}, not with {sorted(expected)}")
        elif expected or value != sent.verdict.value:
            self._tell("wrong", sent, f"has {value!r}, not {sent.verdict.value!r} or {sorted(expected)}")
        return sent

    def _settle(self, ended: list[Sent]) -> None:
        """Wait until nothing happens any more, and check what has."""
        until = time.monotonic() + PATIENCE_SECONDS
        waiting = ended
        while waiting and time.monotonic() < until:
            self._ledger.update()
            waiting = [sent for sent in waiting if self._is_open(sent)]
            time.sleep(0.2 if waiting else 0)
        while self._app.transport.size("celery") and time.monotonic() < until:
            time.sleep(0.2)
        if size := self._app.transport.size("celery"):
            self.found["left over"] += size
            self.told["left over"].append(f"{size} messages")
        time.sleep(1.0)  # what is one too many, and in the hands of a worker, would come now
        self._ledger.update()
        for sent in ended:
            self._judge(sent)

    def _is_open(self, sent: Sent) -> bool:
        missing = self._late and lost(sent.verdict, self._ledger.seen(sent.key))
        return bool(missing or unready(sent.result))

    def _judge(self, sent: Sent) -> None:
        seen = self._ledger.seen(sent.key)
        self.again += (seen["ran"] - sent.verdict.ran).total()
        if unready(sent.result):
            self._tell("pending", sent, f"{unready(sent.result)}")
        if self._late and (labels := lost(sent.verdict, seen)):
            self._tell("lost", sent, f"{labels}")
        if labels := doubled(sent.node, sent.verdict, self._ledger.notes[sent.key], late=self._late):
            self._tell("doubled", sent, f"{labels}")
        if self._late and (labels := strange(sent.verdict, seen)):
            self._tell("wrong", sent, f"never to happen: {labels}")

    def _tell(self, kind: str, sent: Sent, what: str) -> None:
        self.found[kind] += 1
        if len(self.told[kind]) < SHOWN:
            self.told[kind].append(f"seed {sent.key}: {what} of {described(sent.node)}")


def soak(kind: str, options: argparse.Namespace, table: Table) -> bool:
    """Run all workflows on one kind of server, add a row to the table, and return whether all is well."""
    with tempfile.TemporaryDirectory(prefix="celeriac-soak-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        server = RedisServer() if kind == "redis" else None
        try:
            if server is not None:
                server.start()
            url = server.fresh_url() if server is not None else f"sqlite:///{folder}/soak.db"
            return _soak(kind, url, folder, options, table)
        finally:
            if server is not None:
                server.stop()


def _soak(kind: str, url: str, folder: Path, options: argparse.Namespace, table: Table) -> bool:
    late = not options.early
    settings = {"SOAK_URL": url, "SOAK_FOLDER": str(folder), "SOAK_LATE": "1" if late else "0"}
    seeds = range(options.seed, options.seed + options.n)
    made = Soak(url, folder, late=late)
    victims = Victims(
        folder,
        settings,
        count=options.workers,
        every_seconds=options.every,
        pauses=options.pauses,
        chance=Random(options.seed),
    )
    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with victims, Progress(*columns, console=console) as progress:
        bar = progress.add_task(kind, total=len(seeds))
        for ended in made.run(seeds, victims):
            bad = sum(made.found.values())
            state = f"{kind}: {sum(victims.kills.values())} kills, {bad} findings"
            progress.update(bar, completed=ended, description=state)
    row = [f"{len(seeds):,}", f"{time.monotonic() - started:.0f} s"]
    row += [str(victims.kills["worker"]), str(victims.kills["child"]), f"{made.again:,}"]
    table.add_row(kind, *row, *(str(made.found[finding]) for finding in FINDINGS))
    for finding, texts in made.told.items():
        for text in texts:
            console.print(
                f"{kind}, {finding}: {text}", style="red", markup=False, highlight=False, soft_wrap=True
            )
    return not made.found


def main() -> int:
    """Run what the command line says and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-n", type=int, default=50_000, help="how many workflows on each kind of server")
    parser.add_argument("--servers", nargs="+", choices=["redis", "sqlite"], default=["redis", "sqlite"])
    parser.add_argument("--workers", type=int, default=3, help="how many workers, of two processes each")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two kills, on average")
    parser.add_argument(
        "--pauses",
        type=float,
        default=0.2,
        help="share of the victims that are stopped for a while, not killed",
    )
    parser.add_argument("--seed", type=int, default=100_000, help="of the first workflow, and of the killer")
    parser.add_argument("--early", action="store_true", help="acknowledge early: what is lost has to fail")
    options = parser.parse_args()
    table = Table(title="Random workflows on workers that are killed")
    for name in ("server", "workflows", "time", "workers killed", "processes killed", "ran again", *FINDINGS):
        table.add_column(name, justify="left" if name == "server" else "right")
    results = [soak(kind, options, table) for kind in options.servers]
    good = all(results)
    console.print(table)
    console.print("[green]All is well." if good else "[red]Not all is well; see above.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
