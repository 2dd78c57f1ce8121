"""Jobs, a runner and a collector of reports, for the tests of every pool."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from celeriac.errors import SoftTimeLimitExceeded
from celeriac.message import Finished, Job, Lost, Record, Report, Started
from celeriac.pools.limits import SoftLimit

R = TypeVar("R", Finished, Lost, Started)
_numbers = itertools.count(1)


def job(
    task: str,
    *args: object,
    short: bool = False,
    soft: float | None = None,
    hard: float | None = None,
    body: bytes | None = None,
) -> Job:
    """Return a job for the `CommandRunner`."""
    number = next(_numbers)
    return Job(
        number=number,
        id=f"id-{number}",
        task=task,
        headers={},
        body=json.dumps(args).encode() if body is None else body,
        content_type="application/json",
        content_encoding="utf-8",
        delivery_info={},
        short=short,
        soft_limit_seconds=soft,
        hard_limit_seconds=hard,
    )


class CommandRunner:
    """Does what the job's name says; leaves traces in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self) -> None:
        self.trace(f"begin-{os.getpid()}")

    def end(self, exitcode: int) -> None:
        self.trace(f"end-{os.getpid()}-{exitcode}")

    def close(self) -> None: ...

    def trace(self, name: str) -> None:
        """Add a line to a file, which a kill cannot undo."""
        with (self.folder / name).open("a") as file:
            file.write("x\n")

    def times(self, name: str) -> int:
        """Return how many lines a file has."""
        path = self.folder / name
        return len(path.read_text().splitlines()) if path.exists() else 0

    def run(self, job: Job, limit: SoftLimit | None) -> Finished:
        self.trace(job.id)
        try:
            if limit is None:
                payload = self.command(job)
            else:
                with limit:
                    payload = self.command(job)
        except SoftTimeLimitExceeded:
            return Finished(number=job.number, kind="failure", record=None, exception_repr="soft")
        return Finished(
            number=job.number,
            kind="success",
            record=Record(id=job.id, state="SUCCESS", payload=payload),
            pid=os.getpid(),
        )

    def command(self, job: Job) -> bytes:
        if job.task == "size":
            return str(len(job.body)).encode()
        args = json.loads(job.body)
        match job.task:
            case "echo":
                return str(args[0]).encode()
            case "big":
                return b"b" * int(args[0])
            case "sleep":
                until = time.monotonic() + args[0]
                while time.monotonic() < until:
                    time.sleep(0.01)  # in pieces: a thread's soft limit strikes between them
            case "exit":
                raise SystemExit(args[0])
            case "leave":
                os._exit(args[0])
            case "kill":
                os.kill(os.getpid(), args[0])
                time.sleep(10)
            case "eat":
                self.eaten = bytearray(args[0])
            case "wait_for":
                while not (self.folder / args[0]).exists():
                    time.sleep(0.002)
        return b""


class Reports:
    """Collects what a pool delivers; `until` waits for something in it."""

    def __init__(self) -> None:
        self.all: list[Report] = []
        self.batches: list[int] = []
        self._news = asyncio.Event()

    def __call__(self, batch: Sequence[Report]) -> None:
        if batch:
            self.batches.append(len(batch))
        self.all.extend(batch)
        self._news.set()

    def of(self, kind: type[R]) -> list[R]:
        """Return the reports of one kind."""
        return [report for report in self.all if isinstance(report, kind)]

    def finished(self) -> dict[int, Finished]:
        """Return what has finished, by number."""
        return {report.number: report for report in self.of(Finished)}

    async def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until a condition holds; it is looked at whenever reports come in, and now and then."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._news.clear()
                try:
                    async with asyncio.timeout(0.02):
                        await self._news.wait()
                except TimeoutError:
                    continue

    async def ended(self, *jobs: Job) -> None:
        """Wait until each job has finished or is lost."""
        wanted = {job.number for job in jobs}

        def all_ended() -> bool:
            return wanted <= {report.number for report in self.all if not isinstance(report, Started)}

        await self.until(all_ended)
