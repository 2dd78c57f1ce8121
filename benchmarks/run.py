"""Real Celery and Celeriac side by side: the same program, the same settings, in turn.

Every figure is a median over the rounds; a run counts only if every task ran exactly once.
``python benchmarks/run.py --help`` lists what can be chosen.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import sides  # noqa: E402 - found through the path above
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from redis_probe import command as redis_command  # noqa: E402
from servers import RabbitServer, RedisServer  # noqa: E402
from servers.server import until  # noqa: E402

console = Console()
Figures = dict[str, float]


class Bench:
    """One side on one pair of servers: fills queues, drains them, counts what ran.

    Args:
        python: The side's interpreter.
        broker: Broker URL.
        backend: Result backend URL; empty for none.
        confirm: Whether RabbitMQ confirms each publish.
    """

    def __init__(self, python: Path, broker: str, backend: str, *, confirm: bool = False) -> None:
        self.python = python
        self.marks = Path(tempfile.mkdtemp(prefix="celeriac-bench-", dir="/dev/shm"))
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")},
            "BENCH_BROKER": broker,
            "BENCH_BACKEND": backend,
            "BENCH_CONFIRM": "1" if confirm else "0",
            "BENCH_MARKS": str(self.marks),
        }

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.marks)

    def command(self, operation: str, **arguments: object) -> list[str]:
        """Return the command line of an operation of client.py."""
        return [str(self.python), str(HERE / "client.py"), operation, json.dumps(arguments)]

    def client(self, operation: str, **arguments: object) -> Figures:
        """Run an operation of client.py and return its figures."""
        command = self.command(operation, **arguments)
        done = subprocess.run(
            command, env=self.environment, cwd=HERE, stdout=subprocess.PIPE, check=True, timeout=600
        )
        figures: Figures = json.loads(done.stdout.splitlines()[-1])
        return figures

    @contextlib.contextmanager
    def worker(self, *more: str, processes: int = 2) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker for as long as the block takes, with more options if need be."""
        options = ["-c", str(processes), "-l", "WARNING", *more]
        options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        command = [str(self.python), "-m", "celery", "-A", "program", "worker", *options]
        log = self.marks / "worker.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=self.environment, cwd=HERE, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise RuntimeError(f"The worker did not stop:\n{log.read_text()}") from None

    def ran(self) -> list[tuple[float, int]]:
        """Return when each task ran, by time; negative ids are warm-up."""
        found = []
        for path in self.marks.glob("*.bin"):
            data = path.read_bytes()
            found += list(struct.iter_unpack("<dq", data[: len(data) // 16 * 16]))
        return sorted((at, i) for at, i in found if i >= 0)

    def marks_count(self) -> int:
        """Return how often tasks ran, those of the warm-up among them."""
        return sum(path.stat().st_size for path in self.marks.glob("*.bin")) // 16

    def wait_for(self, n: int, timeout_seconds: float = 300) -> list[tuple[float, int]]:
        """Wait until n tasks ran, and insist that each ran exactly once."""
        limit = time.monotonic() + timeout_seconds
        # Sizes first: reading 20,000 marks takes 4 ms of what the worker could have.
        while self.marks_count() < n or len(self.ran()) < n:
            if time.monotonic() > limit:
                raise RuntimeError(f"Only {len(self.ran())} of {n} tasks ran in {timeout_seconds:.0f} s.")
            time.sleep(0.05)
        time.sleep(0.5)  # a task that runs twice would do so now
        ran = self.ran()
        counts = collections.Counter(i for _, i in ran)
        if sorted(counts) != list(range(n)) or any(c != 1 for c in counts.values()):
            raise RuntimeError(
                f"{n} tasks were sent, {len(counts)} ran, {len(ran) - len(counts)} of them again."
            )
        return ran

    def drain(self, kind: str, n: int, *options: str, server: RedisServer | None = None) -> Figures:
        """Fill a queue, start a worker, and time it from its first task to its last.

        Args:
            kind: Which task.
            n: How many.
            *options: Of the worker.
            server: The broker, if its processor time is of interest.
        """
        figures = self.client("fill", kind=kind, n=n)
        before = 0.0 if server is None else _cpu_seconds(server.pid)
        with self.worker(*options) as process:
            ran = self.wait_for(n)
            figures["worker_cpu_us"] = _tree_cpu_seconds(process.pid) / n * 1e6
        if server is not None:
            figures["broker_cpu_us"] = (_cpu_seconds(server.pid) - before) / n * 1e6
        middle = ran[n // 20 : -n // 20]  # steady rate: without the first and last 5 %
        figures["drain_per_s"] = len(middle) / (middle[-1][0] - middle[0][0])
        return figures

    def drain_heard(self, kind: str, n: int, server: RedisServer) -> Figures:
        """Do as `drain` with events, and a listener that hears all of them."""
        command = self.command("hear", n=n + 1)  # and the one that warms up
        with subprocess.Popen(command, env=self.environment, cwd=HERE, stdout=subprocess.PIPE) as listener:
            try:
                until(lambda: redis_command(server.url, "PUBSUB", "NUMPAT") or None, 60, "a listener")
                figures = self.drain(kind, n, "-E", server=server)
                output, _ = listener.communicate(timeout=60)
            finally:
                listener.kill()
        heard: Figures = json.loads(output.splitlines()[-1])
        return figures | heard

    def start_up(self) -> Figures:
        """Time from starting a worker to its first task done, and its memory when idle."""
        self.client("fill", kind="noop", n=1)
        began = time.monotonic()
        with self.worker() as process:
            ran = self.wait_for(1)
            time.sleep(1)
            return {"start_s": ran[0][0] - began, "pss_mb": _tree_pss_kib(process.pid) / 1024}


def _tree(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        queue += children.get(found[-1], [])
    return found


def _tree_cpu_seconds(pid: int) -> float:
    return sum(map(_cpu_seconds, _tree(pid)))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _tree_pss_kib(pid: int) -> int:
    total = 0
    for member in _tree(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def _tree_peak_kib(pid: int) -> int:
    """Return the most memory that any of the processes has had so far (RSS)."""
    statuses = [Path(f"/proc/{member}/status").read_text() for member in _tree(pid)]
    return max(int(status.partition("VmHWM:")[2].split()[0]) for status in statuses)


# --- the table -----------------------------------------------------------------------------------------

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
    ("start", "start_s", "start to first task, s", "≤ 0.5 s"),
    ("start", "pss_mb", "idle memory (PSS), MB", "≤ half"),
]


def workloads(
    options: argparse.Namespace, redis: RedisServer, rabbit: RabbitServer
) -> dict[str, Callable[[str, Path], Figures | None]]:
    """Return what to run: a call per workload that takes the side and its Python."""

    def redis_drain(kind: str, *worker: str) -> Callable[[str, Path], Figures]:
        def run(side: str, python: Path) -> Figures:
            url = redis.fresh_url()
            with Bench(python, url, url) as bench:
                return bench.drain(kind, options.tasks, *worker, server=redis)

        return run

    def redis_drain_heard(side: str, python: Path) -> Figures:
        url = redis.fresh_url()
        with Bench(python, url, url) as bench:
            return bench.drain_heard("noop_with_result", options.tasks, redis)

    def rabbit_drain(confirm: bool) -> Callable[[str, Path], Figures]:
        def run(side: str, python: Path) -> Figures:
            with Bench(python, rabbit.fresh_url(), "", confirm=confirm) as bench:
                return bench.drain("noop", options.tasks)

        return run

    def sqlite_drain(kind: str) -> Callable[[str, Path], Figures | None]:
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


def workflows(
    options: argparse.Namespace, redis: RedisServer
) -> dict[str, Callable[[str, Path], Figures | None]]:
    """Return what to run of workflows and their results."""

    def redis_group(side: str, python: Path) -> Figures:
        url = redis.fresh_url()
        with Bench(python, url, url) as bench:
            return bench.client("send_group", n=options.members)

    def redis_workflow(
        *operations: str, n: int = options.members, only_ours: bool = False
    ) -> Callable[[str, Path], Figures | None]:
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
                    "worker_pss_mb": _tree_pss_kib(process.pid) / 1024,
                    "worker_peak_mb": _tree_peak_kib(process.pid) / 1024,
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


def main() -> int:
    """Run the chosen workloads and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side, in turn (default 3)")
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks of a drain (default 20000)")
    parser.add_argument("--round-trips", type=int, default=1_000, help="round trips of a run (default 1000)")
    parser.add_argument(
        "--members", type=int, default=10_000, help="members of a group or chord (default 10000)"
    )
    parser.add_argument("--wide", type=int, default=100_000, help="members of a wide chord (default 100000)")
    # Making a chain of n links takes Celery time that grows with n squared; 1,000 would be all of a run.
    parser.add_argument("--links", type=int, default=200, help="links of a chain (default 200)")
    parser.add_argument(
        "--only", default="", help="comma-separated words; workloads that contain one of them"
    )
    parser.add_argument(
        "--side", choices=("both", "celery", "celeriac"), default="both", help="whom to run (default both)"
    )
    parser.add_argument("--json", type=Path, help="write all figures of all runs to this file")
    options = parser.parse_args()

    makers = {"celery": sides.celery, "celeriac": sides.celeriac}
    pythons = {side: make() for side, make in makers.items() if options.side in ("both", side)}
    redis, rabbit = RedisServer(), RabbitServer()
    words = [word.strip() for word in options.only.split(",") if word.strip()]
    figures: dict[tuple[str, str], list[Figures]] = collections.defaultdict(list)
    for server in (redis, rabbit):
        server.start()
    try:
        chosen = {
            name: run
            for name, run in {**workloads(options, redis, rabbit), **workflows(options, redis)}.items()
            if not words or any(word in name for word in words)
        }
        with console.status("") as status:
            for round_number in range(1, options.rounds + 1):
                for name, run in chosen.items():
                    for side, python in pythons.items():
                        status.update(f"round {round_number} of {options.rounds}: {name}, {side}")
                        if (found := run(side, python)) is not None:
                            figures[name, side].append(found)
                            console.print(f"[dim]{round_number} {name} {side}: {_brief(found)}[/]")
    finally:
        for server in (redis, rabbit):
            server.stop()
    show(figures)
    if options.json:
        options.json.write_text(
            json.dumps({" | ".join(key): runs for key, runs in figures.items()}, indent=1)
        )
    return 0


def show(figures: dict[tuple[str, str], list[Figures]]) -> None:
    """Print medians and the median of the rounds' ratios."""
    table = Table(title="Medians; ratio: Celeriac over Celery, the median of the rounds")
    for heading in ("workload", "figure", "Celery", "Celeriac", "ratio", "goal"):
        table.add_column(heading, justify="left" if heading in ("workload", "figure", "goal") else "right")
    for workload, figure, label, goal in ROWS:
        theirs = [one[figure] for one in figures.get((workload, "celery"), [])]
        ours = [one[figure] for one in figures.get((workload, "celeriac"), [])]
        if ours:
            ratio = (
                f"{statistics.median(o / t for o, t in zip(ours, theirs, strict=True)):.2f}"
                if len(theirs) == len(ours)
                else "-"
            )
            table.add_row(workload, label, _median(theirs), _median(ours), ratio, goal)
    console.print(table)


def _median(values: list[float]) -> str:
    if not values:
        return "-"
    value = statistics.median(values)
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _brief(found: Figures) -> str:
    return ", ".join(f"{key} {value:,.2f}" for key, value in found.items())


if __name__ == "__main__":
    sys.exit(main())
