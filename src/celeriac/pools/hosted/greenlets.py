"""The gevent and eventlet pools: a greenlet for each job."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from celeriac.errors import ConfigError, SoftTimeLimitExceeded
from celeriac.message import Finished, Job, Lost
from celeriac.pools.base import PoolOptions, Runner, nothing
from celeriac.pools.hosted import patched
from celeriac.pools.hosted.host import Host, escaped, host_main
from celeriac.pools.hosted.line import HostEnd
from celeriac.pools.hosted.pool import HostedPool
from celeriac.pools.prefork.forker import ChildMain
from celeriac.pools.prefork.spawned import Invitation, spawn_main


class Hub(Protocol):
    """What a library of greenlets has to do for us."""

    def spawn(self, function: Callable[..., object], *args: object) -> None:
        """Run a function in a greenlet of its own."""
        ...

    def current(self) -> Any:  # Any: a greenlet
        """Return the greenlet that runs."""
        ...

    def later(self, seconds: float, function: Callable[[], object]) -> Callable[[], object]:
        """Have a function called by the hub itself; return what cancels that."""
        ...

    def wait_readable(self, fd: int) -> None:
        """Wait until there is something to read."""
        ...


class GeventHub:
    """gevent's."""

    def __init__(self) -> None:
        self._gevent: Any = importlib.import_module("gevent")  # Any: an optional package
        self._socket: Any = importlib.import_module("gevent.socket")

    def spawn(self, function: Callable[..., object], *args: object) -> None:
        """Run a function in a greenlet of its own."""
        self._gevent.spawn(function, *args)

    def current(self) -> Any:  # Any: a greenlet
        """Return the greenlet that runs."""
        return self._gevent.getcurrent()

    def later(self, seconds: float, function: Callable[[], object]) -> Callable[[], object]:
        """Have a function called by the hub itself; return what cancels that."""
        timer = self._gevent.get_hub().loop.timer(seconds)
        timer.start(function)
        cancel: Callable[[], object] = timer.close
        return cancel

    def wait_readable(self, fd: int) -> None:
        """Wait until there is something to read."""
        self._socket.wait_read(fd)


class EventletHub:
    """eventlet's."""

    def __init__(self) -> None:
        self._eventlet: Any = importlib.import_module("eventlet")  # Any: an optional package
        self._hubs: Any = importlib.import_module("eventlet.hubs")

    def spawn(self, function: Callable[..., object], *args: object) -> None:
        """Run a function in a greenlet of its own."""
        self._eventlet.spawn_n(function, *args)

    def current(self) -> Any:  # Any: a greenlet
        """Return the greenlet that runs."""
        return self._eventlet.getcurrent()

    def later(self, seconds: float, function: Callable[[], object]) -> Callable[[], object]:
        """Have a function called by the hub itself; return what cancels that."""
        timer = self._hubs.get_hub().schedule_call_global(seconds, function)
        cancel: Callable[[], object] = timer.cancel
        return cancel

    def wait_readable(self, fd: int) -> None:
        """Wait until there is something to read."""
        self._hubs.trampoline(fd, read=True)


_HUBS: dict[str, Callable[[], Hub]] = {"gevent": GeventHub, "eventlet": EventletHub}


class GreenletLimit:
    """What can be raised inside one greenlet, where it waits, and nowhere else.

    Args:
        hub: Its hub.
        job: Whose limits.
    """

    def __init__(self, hub: Hub, job: Job) -> None:
        self.seconds: float = job.soft_limit_seconds or 0.0
        self._hub = hub
        self._soft = job.soft_limit_seconds
        self._hard = job.hard_limit_seconds
        self._greenlet: Any = None  # Any: a greenlet; None outside
        self._since = 0.0
        self._struck = False
        self._ended = False
        self._cancel: Callable[[], object] | None = None

    def __enter__(self) -> None:
        """The user's code begins."""
        if self._ended:
            raise SystemExit
        self._since = time.monotonic()
        self._greenlet = self._hub.current()
        if self._soft is not None:
            self._cancel = self._hub.later(self._soft, self._expire)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """The user's code has ended."""
        self._greenlet = None
        if self._cancel is not None:
            self._cancel()

    def end(self) -> None:
        """Have ``SystemExit`` raised in it; to be called in another greenlet."""
        self._ended = True
        self._hub.later(0, lambda: self._throw(SystemExit()))

    def interrupt(self) -> None:
        """Raise right here what it is due: for handlers of signals.

        Raises:
            SoftTimeLimitExceeded: It is past its soft limit.
            SystemExit: It is past its hard limit, or told to end.
        """
        if self._greenlet is None or self._greenlet is not self._hub.current():
            return
        ran = time.monotonic() - self._since
        if self._ended or (self._hard is not None and ran >= self._hard):
            raise SystemExit
        if self._soft is not None and ran >= self._soft and not self._struck:
            self._struck = True
            raise SoftTimeLimitExceeded

    def _expire(self) -> None:
        if not self._struck:
            self._struck = True
            self._throw(SoftTimeLimitExceeded())

    def _throw(self, exc: BaseException) -> None:
        """Raise in the greenlet; called by the hub, so it waits somewhere, and goes on at once."""
        if self._greenlet is not None:
            self._greenlet.throw(exc)


class GreenletHost(Host):
    """Runs each job in a greenlet.

    Args:
        line: To the node.
        make_runner: Called for what runs the jobs.
        make_hub: Called for the hub.
        tell: Called with this and a word when something happens that programs listen for.
    """

    def __init__(
        self,
        line: HostEnd,
        make_runner: Callable[[], Runner],
        make_hub: Callable[[], Hub],
        tell: Callable[..., object] = nothing,
    ) -> None:
        super().__init__(line, make_runner)
        self._hub = make_hub()
        self._tell = tell
        self._limits: dict[int, GreenletLimit] = {}

    def serve(self) -> None:
        """Let the hub run until told to stop."""
        self._tell(self, "started")
        self.line.ready()
        while True:
            self._hub.wait_readable(self.line.fileno())
            if not self.read_all():
                self._tell(self, "preshutdown")
                self.flush()
                self._tell(self, "postshutdown")
                return

    def soon(self, function: Callable[[], None]) -> None:
        """Have a function called soon, in a greenlet of its own."""
        self._hub.spawn(function)

    def begin(self, job: Job, runner: Runner) -> None:
        """Have a job begun."""
        limit = self._limits[job.number] = GreenletLimit(self._hub, job)
        self._tell(self, "apply", target=runner.run, args=(job, limit), kwargs={})
        self._hub.spawn(self._run, job, runner, limit)

    def _run(self, job: Job, runner: Runner, limit: GreenletLimit) -> None:
        began = time.time()
        report: Finished | Lost
        try:
            report = runner.run(job, limit)
        except BaseException as exc:  # noqa: BLE001 - it ends the job, not the process with all the others
            report = escaped(job, exc)
        del self._limits[job.number]
        self.ended(report, began, runner)

    def end(self, number: int, signum: int) -> None:
        """Have ``SystemExit`` raised in a greenlet."""
        limit = self._limits.get(number)
        if limit is not None:
            limit.end()

    def interrupt(self) -> None:
        """Raise in the greenlet that blocks the hub, if it is past one of its limits."""
        for limit in list(self._limits.values()):
            limit.interrupt()


def main_in(invited: Invitation, make_runner: Callable[[], Runner], options: PoolOptions) -> ChildMain:
    """Return what the patched process of a pool does."""
    make_hub = _HUBS[invited.pool]
    make_host = functools.partial(GreenletHost, make_hub=make_hub, tell=options.tell)
    return host_main(make_host, make_runner, options)


def make_gevent_pool(options: PoolOptions, make_runner: Callable[[], Runner]) -> HostedPool:
    """Return the gevent pool."""
    return _make_pool("gevent", options)


def make_eventlet_pool(options: PoolOptions, make_runner: Callable[[], Runner]) -> HostedPool:
    """Return the eventlet pool."""
    return _make_pool("eventlet", options)


def _make_pool(kind: str, options: PoolOptions) -> HostedPool:
    if importlib.util.find_spec(kind) is None:
        raise ConfigError(f"The {kind} pool needs {kind}: pip install celeriac[{kind}]")
    if not options.program:
        raise ConfigError(
            f"The {kind} pool begins a process with the worker's own command line, in which {kind} patches "
            "the standard library before anything is loaded, and this worker has none: it runs inside of "
            "another program. Use the worker command."
        )
    program = _patched(kind, options.program)
    return HostedPool(kind, options, spawn_main(None, program, kind))


def _patched(kind: str, program: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command line that runs a program after having patched the standard library.

    Args:
        kind: By whom.
        program: The program's own command line, with the interpreter.
    """
    before, what = split_program(program)
    return (*before, str(Path(patched.__file__)), kind, *what)


_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


def split_program(program: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a command line into the interpreter with its options, and what it is to run."""
    at = 1
    while at < len(program) and program[at].startswith("-") and program[at] not in ("-c", "-m"):
        at += 2 if program[at] in _WITH_VALUE else 1
    return program[:at], program[at:]
