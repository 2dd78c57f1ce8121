"""What all private servers have: start, kill, freeze, thaw, stop."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import psutil

from servers.ports import LOOPBACK, free_port
from servers.watchdog import temporary_folder, watchdog

POLL_SECONDS = 0.02  # between looks at a foreign server that is starting: it has no signal to wait for
STOP_SECONDS = 10.0

Answer = TypeVar("Answer")


class MissingServer(Exception):
    """The server's program is not installed; the text says how to install it."""


class ServerEnded(RuntimeError):
    """The server ended before it answered; the text has the end of its log."""


def required() -> bool:
    """Whether a missing server is a failure (CI, ``make test``) and not a reason to skip."""
    return os.environ.get("CI", "").lower() in {"1", "true"} or bool(
        os.environ.get("CELERIAC_REQUIRE_SERVERS")
    )


def until(look: Callable[[], Answer | None], timeout: float, what: str) -> Answer:
    """Call ``look`` until it returns something other than None.

    Only for what has no signal to wait for: a foreign server that starts.
    """
    deadline = time.monotonic() + timeout
    while True:
        if (answer := look()) is not None:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout} s for {what}")
        time.sleep(POLL_SECONDS)


class Server:
    """One private server process.

    Duties: 1. start: find the program, make the data folder, run it on its port, wait until it answers;
    2. kill, freeze, thaw, restart: what tests of failures need, the data stays; 3. stop: end it for good.
    """

    program: ClassVar[str]
    package: ClassVar[str]  # Debian's name
    start_seconds: ClassVar[float] = 20.0
    _all: ClassVar[list[Server]] = []
    _owner: ClassVar[int] = os.getpid()  # a forked child that exits must not stop its parent's servers

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()
        self._fresh = itertools.count(1)
        self.port = 0
        self.folder = Path()

    # --- for the kinds ---

    def prepare(self) -> None:
        """Make what the server needs before its first start."""

    def command(self) -> Sequence[str]:
        """Return the command line that runs it in the foreground."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Return its environment."""
        return os.environ

    def user(self) -> str | None:
        """Return the name of the user to run as; None = as we are."""
        return None

    def answers(self) -> bool:
        """Whether it can be used now."""
        raise NotImplementedError

    def shut_down(self) -> None:
        """Ask it to end by itself."""
        assert self._process is not None
        self._process.terminate()

    # --- for tests ---

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return when it answers; again after `kill` with the same port and data."""
        with self._lock:
            if self.running:
                return
            if self._process is not None:
                self._run()
                return
            self._set_up()
            try:
                self._run()
            except ServerEnded:
                # Its port is ours among test runs, but not for the rest of the machine.
                self._set_up()
                self._run()

    def kill(self) -> None:
        """Kill -9, as a power cut would; `start` brings it back."""
        with self._lock:
            if self._process is not None:
                self._end(self._family())

    def restart(self) -> None:
        """End it in good order and start it again."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop its clock: connections stay open and nobody answers, as behind a black hole."""
        self._signal(signal.SIGSTOP)
        # On a busy machine its threads go on for a moment, in which it would still answer.
        until(
            lambda: set("".join(self._thread_states())) <= {"T", "Z"} or None,
            STOP_SECONDS,
            "it to stand still",
        )

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it in good order, by force when it takes too long; does nothing when it is not running."""
        with self._lock:
            if not self.running:
                return
            self.thaw()
            assert self._process is not None
            family = self._family()
            try:
                self.shut_down()
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass  # it had its time
            finally:
                self._end(family)

    @classmethod
    def stop_all(cls) -> None:
        """Stop every server of this process, the last started first, and remove their data."""
        if os.getpid() != cls._owner:
            return
        try:
            while cls._all:
                cls._all.pop().stop()
        finally:
            watchdog.close()  # ends what is left when one of them would not

    @classmethod
    def find(cls, name: str, *folders: str) -> str:
        """Return the path of a program of this server.

        Raises:
            MissingServer: It is not installed.
        """
        path = os.pathsep.join([*folders, os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
        found = shutil.which(name, path=path)
        if found is None:
            raise MissingServer(f"{name} is not installed: sudo apt-get install -y {cls.package}")
        return found

    def log(self) -> str:
        """Return what the server has printed so far."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # --- inside ---

    def _set_up(self) -> None:
        self.find(self.program)
        self.port = free_port()
        self.folder = temporary_folder(self.program, self.user())
        self.prepare()
        if self not in Server._all:
            Server._all.append(self)

    def _run(self) -> None:
        user = self.user()
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
            )
        watchdog.tell("group", self._process.pid)
        try:
            until(lambda: self._ready_or_dead() or None, self.start_seconds, f"{self.program} to answer")
        except TimeoutError as exc:
            raise RuntimeError(f"{exc}; its log:\n{self.log()[-4000:]}") from None

    def _ready_or_dead(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise ServerEnded(f"{self.program} ended with {self._process.returncode}:\n{self.log()[-4000:]}")
        return self.answers()

    def _family(self) -> list[psutil.Process]:
        """Return its process and all below it: PostgreSQL's have process groups of their own."""
        if not self.running:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.pid)
            return [first, *first.children(recursive=True)]
        return []

    def _signal(self, number: int) -> None:
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _end(self, family: Sequence[psutil.Process]) -> None:
        """Kill these and wait until nothing is left that could hold the port or the files."""
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert self._process is not None
        self._process.wait()
        psutil.wait_procs(family[1:], timeout=STOP_SECONDS)
        watchdog.tell("ended", self._process.pid)

    def _thread_states(self) -> Iterator[str]:
        """Yield the state of every thread of its processes, one letter each, as ``ps`` shows them."""
        for process in self._family():
            for entry in Path(f"/proc/{process.pid}/task").glob("*/stat"):
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    yield entry.read_text().rpartition(")")[2].split()[0]

    def _says(self, question: bytes, answer: bytes) -> bool:
        """Whether the port answers a line with another."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1.0) as connection:
                connection.sendall(question)
                return connection.recv(64).startswith(answer)
        except OSError:
            return False


atexit.register(Server.stop_all)


def unprivileged(*names: str) -> str | None:
    """Return the first of the users that exists when we are root (some servers refuse root), else None."""
    if os.geteuid() != 0:
        return None
    for name in (*names, "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise MissingServer("no unprivileged user to run the server as: adduser --system celeriac")
