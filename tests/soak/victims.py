"""Workers that are killed at random moments, and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Self

from processes import ROOT, user_environment
from servers.watchdog import watchdog

PROCESSES = 2  # of each worker
PAUSE_SECONDS = (0.3, 3.5)  # their leases last 2


class Victims:
    """Some workers, and a thread that kills: now a child of one, now a whole one.

    Args:
        folder: Where logs go.
        settings: Variables of their environment.
        count: How many workers.
        every_seconds: How long it waits between two kills, on average.
        pauses: The share of victims that are stopped for a while instead, long enough to lose their leases or
            not: whole workers, or nodes whose processes go on.
        chance: Says when and whom.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        *,
        count: int,
        every_seconds: float,
        pauses: float,
        chance: Random,
    ) -> None:
        self.kills: dict[str, int] = {"worker": 0, "child": 0}
        self._folder = folder
        self._environment = user_environment(folder, **settings)
        self._environment["PYTHONPATH"] += f"{os.pathsep}{ROOT / 'tests'}"
        self._count = count
        self._every_seconds = every_seconds
        self._pauses = pauses
        self._chance = chance
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._killer = threading.Thread(target=self._kill, daemon=True)

    def __enter__(self) -> Self:
        for number in range(self._count):
            self._start(number)
        self._killer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.spare()
        for worker in self._workers.values():
            self._end(worker)

    def spare(self) -> None:
        """Kill no more."""
        self._over.set()
        self._killer.join()

    def _start(self, number: int) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "celeriac", "-A", "soak.worker_app", "worker"]
        options = ["-n", f"w{number}@soak", "-c", str(PROCESSES), "-l", "CRITICAL"]
        with (self._folder / f"worker-{number}.log").open("ab") as log:
            worker = subprocess.Popen(
                [*command, *options],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        watchdog.tell("group", worker.pid)
        self._workers[number] = worker

    def _kill(self) -> None:
        while not self._over.wait(self._chance.uniform(0.2, 1.8) * self._every_seconds):
            number = self._chance.randrange(self._count)
            worker = self._workers[number]
            if self._chance.random() < self._pauses:
                self._pause(worker)
                continue
            children = _children(worker.pid)
            if children and self._chance.random() < 0.5:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._chance.choice(children), signal.SIGKILL)
                    self.kills["child"] += 1
            else:
                self._end(worker)
                self.kills["worker"] += 1
                self._start(number)

    def _pause(self, worker: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._chance.random() < 0.5:
                os.killpg(worker.pid, signal.SIGSTOP)
            else:
                os.kill(worker.pid, signal.SIGSTOP)
            time.sleep(self._chance.uniform(*PAUSE_SECONDS))
            os.killpg(worker.pid, signal.SIGCONT)

    def _end(self, worker: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        watchdog.tell("ended", worker.pid)


def _children(pid: int) -> list[int]:
    """Return the processes below one that have none below them: those that run tasks, and the forker."""
    try:
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    found = []
    for child in map(int, below):
        found += _children(child) or [child]
    return found
