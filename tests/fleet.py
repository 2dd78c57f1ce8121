"""Real Celery and ours side by side: one program (`interop/program.py`) as worker and as client of either."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import pytest

from celeriac import transports
from processes import Program, user_environment
from servers.watchdog import watchdog

Side = Literal["real", "ours"]
SIDES: tuple[Side, Side] = ("real", "ours")
MARKS = {  # by broker, the servers that a test needs
    "redis": [pytest.mark.redis],
    "rabbitmq": [pytest.mark.rabbitmq, pytest.mark.redis],  # results in Redis, as pickles
    "rpc": [pytest.mark.rabbitmq],  # results as messages
}
HERE = Path(__file__).resolve().parent / "interop"
ANSWER_SECONDS = 90.0
LOOK_SECONDS = 0.01  # between looks at what other programs write: there is no signal to wait for
_QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


class Site:
    """Where the program runs: its servers, and a folder for the files that its tasks write.

    Args:
        celery_python: The interpreter of the environment with real Celery.
        folder: An empty folder.
        broker: The broker's URL.
        results: The result backend's URL.
        **settings: More settings of the program, by their environment variables' names.
    """

    def __init__(self, celery_python: Path, folder: Path, broker: str, results: str, **settings: str) -> None:
        self.folder = folder
        self.broker = broker
        self.results = results
        self._celery_python = celery_python
        self._settings = {
            "PROGRAM_BROKER": broker,
            "PROGRAM_RESULTS": results,
            "PROGRAM_FOLDER": str(folder),
            "C_FORCE_ROOT": "1",  # the worker accepts pickle, and tests in containers run as root
            **settings,
        }
        self._open = contextlib.ExitStack()
        self._consoles: dict[Side, Console] = {}
        self._names = itertools.count(1)

    def start(self, side: Side, *options: str, quiet: bool = True) -> Program:
        """Start a worker; `wait_until_ready` says when it takes tasks.

        Args:
            side: Which.
            *options: Of the command line.
            quiet: Whether it neither listens to other workers nor sends heartbeats.
        """
        command = [
            "worker",
            "-l",
            "INFO",
            "-n",
            f"{side}@%h",
            "-c",
            "2",
            *(_QUIET if quiet else ()),
            *options,
        ]
        module = "celery" if side == "real" else "celeriac"
        return self._open.enter_context(
            Program(
                [self._python(side), "-W", "ignore", "-m", module, "-A", "program", *command],
                cwd=HERE,
                env=self._environment(side),
            )
        )

    def monitor(self, side: Side, python: Path, *arguments: str) -> Program:
        """Start a command of the ``celery`` program that another environment has.

        Args:
            side: Whether that has real Celery; else it finds ours.
            python: Its interpreter.
            *arguments: Of the command line.
        """
        environment = {**self._environment(side), "FLOWER_UNAUTHENTICATED_API": "1"}
        command = [str(python), "-W", "ignore", "-m", "celery", "-A", "program", *arguments]
        return self._open.enter_context(Program(command, cwd=HERE, env=environment))

    def worker(self, side: Side, *options: str) -> Program:
        """Start a worker and return it when it takes tasks."""
        worker = self.start(side, *options)
        wait_until_ready(worker)
        return worker

    def console(self, side: Side) -> Console:
        """Return the client, started when it is first asked for."""
        if side not in self._consoles:
            command = [self._python(side), "-W", "ignore", "console.py"]
            self._consoles[side] = self._open.enter_context(Console(command, self._environment(side)))
        return self._consoles[side]

    def wait_for_waiting(self, queue: str, count: int) -> None:
        """Return when that many messages wait in a queue: Celery does not wait for RabbitMQ to have them."""
        transport = transports.connect(self._settings["PROGRAM_BROKER"])
        try:
            deadline = time.monotonic() + ANSWER_SECONDS
            while (found := transport.size(queue)) != count:
                assert time.monotonic() < deadline, f"{found} and not {count} messages wait in {queue}"
                time.sleep(LOOK_SECONDS)
        finally:
            transport.close()

    def name(self) -> str:
        """Return a name for a file that no other test uses."""
        return f"file-{next(self._names)}"

    def lines(self, name: str, count: int = 1, timeout: float = ANSWER_SECONDS) -> list[str]:
        """Return what tasks have written to a file, once there are that many lines (or more)."""
        path = self.folder / name
        deadline = time.monotonic() + timeout
        while True:
            lines = path.read_text().splitlines() if path.exists() else []
            if len(lines) >= count:
                return lines
            assert time.monotonic() < deadline, f"{len(lines)} of {count} lines: {lines}"
            time.sleep(LOOK_SECONDS)

    def pipe(self, name: str) -> Path:
        """Make a named pipe: opening one end of it waits for the other."""
        path = self.folder / name
        os.mkfifo(path)
        return path

    def close(self) -> None:
        """End everything that was started here."""
        self._open.close()

    def _python(self, side: Side) -> str:
        return str(self._celery_python) if side == "real" else sys.executable

    def _environment(self, side: Side) -> dict[str, str]:
        environment = user_environment(self.folder, **self._settings)
        if side == "real":
            del environment["PYTHONPATH"]
        return environment


def wait_until_ready(worker: Program) -> None:
    """Wait until a worker takes tasks."""
    worker.wait_for(r" ready\.$")


class Console:
    """A client process that evaluates expressions: ``console("add.delay(1, 2).get()")``.

    Args:
        command: The command line.
        env: Its whole environment.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=HERE,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        watchdog.tell("group", self._process.pid)
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __call__(self, expression: str) -> Any:
        """Return the value of an expression.

        Raises:
            AssertionError: It raised, or took too long.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(expression) + "\n")
        self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            raise AssertionError(f"{expression}: no answer after {ANSWER_SECONDS} s") from None
        assert line, f"{expression}: the client has ended"
        answer = json.loads(line)
        assert "error" not in answer, f"{expression}: {answer['error']}"
        return answer["value"]

    def close(self) -> None:
        """End the client."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        watchdog.tell("ended", self._process.pid)
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")
