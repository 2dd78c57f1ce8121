"""Programs run as a user runs them: in a process of their own, watched by what they print."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from servers.watchdog import watchdog

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 60.0

# What a user's shell would have: nothing of the test run's own settings, the project importable.
_FOREIGN = ("CELERY", "DJANGO_", "PYTEST_", "COVERAGE_", "C_FAKEFORK")


def celery(*arguments: str) -> list[str]:
    """Return the command line of the ``celery`` command, also where the drop-in is not installed."""
    script = BIN / "celery"
    return [*([str(script)] if script.exists() else [sys.executable, "-m", "celery"]), *arguments]


def user_environment(home: Path, **settings: str) -> dict[str, str]:
    """Return the environment of a user with an empty home folder.

    Args:
        home: Where state, caches and dot files go.
        **settings: More variables.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN) and k != "CI"}
    paths = [str(ROOT / "src"), str(ROOT / "dropin" / "src"), *filter(None, [inherited.get("PYTHONPATH")])]
    return {
        **inherited,
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "PATH": os.pathsep.join([str(BIN), inherited.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        **settings,
    }


class Program:
    """A running program; use it as a context manager, or `end` it.

    Duties: 1. read everything that it prints (both streams) as it comes; 2. let a test wait for a line;
    3. end it with all its children, whatever happened,
    also when the test run itself is killed.

    Args:
        command: The command line.
        cwd: Where it runs.
        env: Its whole environment.
    """

    def __init__(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        self.command = list(command)
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._closed = False
        self._process = subprocess.Popen(
            self.command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
            start_new_session=True,
        )
        watchdog.tell("group", self._process.pid)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """All that it has printed so far."""
        with self._news:
            return "".join(self._lines)

    def wait_for(self, pattern: str, timeout: float = PATIENCE_SECONDS, *, count: int = 1) -> list[str]:
        """Return the first ``count`` lines that match a regular expression, once they are there.

        Raises:
            AssertionError: They did not come in time, or the program ended without them.
        """
        seen = re.compile(pattern)
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                found = [line for line in self._lines if seen.search(line)]
                if len(found) >= count:
                    return found[:count]
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    why = "it ended" if self._closed else f"{timeout} s passed"
                    found_so_far = f"{len(found)} of {count} line(s) match {pattern!r}"
                    raise AssertionError(
                        f"{' '.join(self.command)}: {why}, {found_so_far} in\n" + "".join(self._lines)
                    )
                self._news.wait(left)

    def signal(self, number: int) -> None:
        """Send a signal to the program itself, not to its children."""
        self._process.send_signal(number)

    def finish(self, timeout: float = PATIENCE_SECONDS) -> int:
        """Wait until it ends by itself and return its exit code.

        Raises:
            AssertionError: It still runs.
        """
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{' '.join(self.command)} still runs after {timeout} s:\n{self.output}"
            ) from None
        self._reader.join(timeout)
        return code

    def stop(self, timeout: float = PATIENCE_SECONDS) -> int:
        """Send SIGTERM, as a service manager does, and return the exit code."""
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.finish(timeout)

    def end(self) -> None:
        """End it and its children by force, when they still run."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        watchdog.tell("ended", self._process.pid)
        self._reader.join(PATIENCE_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._closed = True
            self._news.notify_all()


def run(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float = PATIENCE_SECONDS
) -> str:
    """Run a program to its end and return what it printed (both streams).

    Raises:
        AssertionError: It failed or took too long.
    """
    with Program(command, cwd=cwd, env=env) as program:
        code = program.finish(timeout)
        assert code == 0, f"{' '.join(command)} ended with {code}:\n{program.output}"
        return program.output
