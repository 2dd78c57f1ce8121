"""Real Celery and Celeriac side by side: the same program, the same settings, in turn.

Every figure is a median over the rounds; a run counts only if every task ran exactly once.
Some rows have a peer beside both, with its own program for the same work.
``python benchmarks/run.py --help`` lists what can be chosen.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import drains  # noqa: E402 - found through the path above
import etas  # noqa: E402
import flows  # noqa: E402
import pools  # noqa: E402
import priorities  # noqa: E402
import sides  # noqa: E402
from bench import Figures, Run, Servers  # noqa: E402
from rich.console import Console  # noqa: E402
from rows import show  # noqa: E402

from servers import RabbitServer, RedisServer  # noqa: E402

console = Console()
SIZES = [
    ("tasks", 20_000, "tasks of a drain"),
    ("round-trips", 1_000, "round trips of a run"),
    ("members", 10_000, "members of a group or chord"),
    ("wide", 100_000, "members of a wide chord"),
    # Making a chain of n links takes Celery time that grows with n squared; 1,000 would be all of a run.
    ("links", 200, "links of a chain"),
    ("etas", 100_000, "tasks for later"),
    ("sleeps", 2_000, "tasks that wait for 50 ms"),
    ("burns", 2_000, "tasks that compute for 5 ms"),
    ("low", 10_000, "tasks before the urgent ones"),
]


def main() -> int:
    """Run the chosen workloads and print the table."""
    options = _options()
    makers = {"celery": sides.celery, "celeriac": sides.celeriac}
    pythons = {side: make() for side, make in makers.items() if options.side in ("both", side)}
    servers = Servers(RedisServer(), RabbitServer())
    chosen = {
        name: run
        for part in (drains, flows, etas, pools, priorities)
        for name, run in part.workloads(options, servers).items()
        if not options.only or any(word in name for word in options.only)
    }
    peers = pools.peers(options, servers) if options.side == "both" and options.peers else {}
    figures: dict[tuple[str, str], list[Figures]] = collections.defaultdict(list)
    for server in servers:
        server.start()
    try:
        for round_number in range(1, options.rounds + 1):
            for name, run in chosen.items():
                for side, python, act in _turns(run, pythons, peers.get(name)):
                    with console.status(f"round {round_number} of {options.rounds}: {name}, {side}"):
                        found = act(side, python)
                    if found is not None:
                        figures[name, side].append(found)
                        console.print(f"[dim]{round_number} {name} {side}: {_brief(found)}[/]")
    finally:
        for server in servers:
            server.stop()
    show(console, figures, {name: peer for name, (peer, _) in peers.items()})
    if options.json:
        options.json.write_text(
            json.dumps({" | ".join(key): runs for key, runs in figures.items()}, indent=1)
        )
    return 0


def _turns(
    run: Run, pythons: dict[str, Path], peer: tuple[str, Run] | None
) -> Iterator[tuple[str, Path, Run]]:
    """Yield who does a workload in a round: the side, its Python and what it does."""
    for side, python in pythons.items():
        yield side, python, run
    if peer is not None:
        name, act = peer
        yield "peer", pools.PEERS[name](), act


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=3, help="runs of each side, in turn (default 3)")
    for name, default, what in SIZES:
        add(f"--{name}", type=int, default=default, help=f"{what} (default {default})")
    add("--only", type=_words, default=[], help="comma-separated words; workloads that contain one of them")
    add("--side", choices=("both", "celery", "celeriac"), default="both", help="whom to run (default both)")
    add("--no-peers", dest="peers", action="store_false", help="leave out the other task queues")
    add("--json", type=Path, help="write all figures of all runs to this file")
    return parser.parse_args()


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _brief(found: Figures) -> str:
    return ", ".join(f"{key} {value:,.2f}" for key, value in found.items())


if __name__ == "__main__":
    sys.exit(main())
