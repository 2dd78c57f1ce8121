"""One side on one pair of servers."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import tree

from redis_probe import command as redis_command
from servers import RabbitServer, RedisServer
from servers.server import until

HERE = Path(__file__).resolve().parent
Figures = dict[str, float]
Run = Callable[[str, Path], Figures | None]  # takes the side and its Python; None: it cannot do that


class Servers(NamedTuple):
    """What all of a run share."""

    redis: RedisServer
    rabbit: RabbitServer


class Bench:
    """One side on one pair of servers: fills queues, drains them, counts what ran.

    Args:
        python: The side's interpreter.
        broker: Broker URL.
        backend: Result backend URL; empty for none.
        confirm: Whether RabbitMQ confirms each publish.
        priorities: Whether RabbitMQ's queues have priorities.
        program: Runs a client's operations: Celery's, or a peer's.
    """

    def __init__(
        self,
        python: Path,
        broker: str,
        backend: str,
        *,
        confirm: bool = False,
        priorities: bool = False,
        program: str = "client.py",
    ) -> None:
        self.python = python
        self._program = HERE / program
        self.marks = Path(tempfile.mkdtemp(prefix="celeriac-bench-", dir="/dev/shm"))
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")},
            "BENCH_BROKER": broker,
            "BENCH_BACKEND": backend,
            "BENCH_CONFIRM": "1" if confirm else "0",
            "BENCH_PRIORITIES": "1" if priorities else "0",
            "BENCH_MARKS": str(self.marks),
        }

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.marks)

    def command(self, operation: str, **arguments: object) -> list[str]:
        """Return the command line of an operation of the client."""
        return [str(self.python), str(self._program), operation, json.dumps(arguments)]

    def client(self, operation: str, **arguments: object) -> Figures:
        """Run an operation of the client and return its figures."""
        command = self.command(operation, **arguments)
        done = subprocess.run(
            command, env=self.environment, cwd=HERE, stdout=subprocess.PIPE, check=True, timeout=600
        )
        figures: Figures = json.loads(done.stdout.splitlines()[-1])
        return figures

    def worker(
        self, *more: str, processes: int = 2, abandon: bool = False
    ) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """Run a worker of Celery's program for as long as the block takes.

        Args:
            *more: More options.
            processes: Its slots, of whatever kind the pool has.
            abandon: Kill it in the end, where a clean stop would hand back all that it has taken.
        """
        options = ["-c", str(processes), "-l", "WARNING", *more]
        options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        return self.running(["-m", "celery", "-A", "program", "worker", *options], abandon=abandon)

    @contextlib.contextmanager
    def running(self, command: Sequence[str], *, abandon: bool = False) -> Iterator[subprocess.Popen[bytes]]:
        """Run something under the side's Python for as long as the block takes.

        Args:
            command: What follows the interpreter's name.
            abandon: Kill it in the end, with all that came of it.
        """
        log = self.marks / "worker.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(self.python), *command],
                env=self.environment,
                cwd=HERE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            if abandon:
                for member in tree.members(process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(member, signal.SIGKILL)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise RuntimeError(f"The worker did not stop:\n{log.read_text()}") from None

    def ran(self) -> list[tuple[float, int]]:
        """Return when each task ran, by time; negative ids are warm-up."""
        return sorted((at, i) for at, i in self._read() if i >= 0)

    def first_beginning(self) -> float:
        """Return when the first of those tasks began that leave a mark of it."""
        return min(at for at, i in self._read() if i <= -2)

    def _read(self) -> list[tuple[float, int]]:
        found: list[tuple[float, int]] = []
        for path in self.marks.glob("*.bin"):
            data = path.read_bytes()
            found += list(struct.iter_unpack("<dq", data[: len(data) // 16 * 16]))
        return found

    def marks_count(self) -> int:
        """Return how many marks there are, those of the warm-up among them."""
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
        before = 0.0 if server is None else tree.own_cpu_seconds(server.pid)
        with self.worker(*options) as process:
            ran = self.wait_for(n)
            figures["worker_cpu_us"] = tree.cpu_seconds(process.pid) / n * 1e6
        if server is not None:
            figures["broker_cpu_us"] = (tree.own_cpu_seconds(server.pid) - before) / n * 1e6
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
            return {"start_s": ran[0][0] - began, "pss_mb": tree.pss_kib(process.pid) / 1024}
