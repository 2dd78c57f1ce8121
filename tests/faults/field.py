"""Where a fault strikes: a broker, workers in processes of their own, a client, and the ledger of it all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from celeriac.app import Celeriac
from celeriac.letters import Letter
from celeriac.ports import ConsumeSpec
from celeriac.states import READY_STATES
from celeriac.testing.conformance.fixtures import ack
from faults.brokers import Broker
from faults.ledger import Entry, Ledger, Reader, What, keys
from faults.memory_limit import forget_the_dead
from faults.wall_clock import WallClock
from processes import ROOT, Program, user_environment

QUEUE = "celery"
SLOTS = 2  # of a worker
PATIENCE_SECONDS = 60.0
_LULL_SECONDS = 0.1
LOOK_SECONDS = 0.02  # what other processes write has no signal to wait for
LEASE_SECONDS = 3.0  # a process that stalls longer on a busy machine is taken for dead
_DRAIN_SECONDS = 2 * LEASE_SECONDS

Answer = TypeVar("Answer")


@dataclass(slots=True)
class Node:
    """One worker."""

    name: str
    program: Program

    def family(self) -> list[psutil.Process]:
        """Return its process and all below it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.program.pid)
            return [first, *first.children(recursive=True)]
        return []

    def signal(self, number: int) -> None:
        """Send a signal to its main process only."""
        self.program.signal(number)

    def signal_all(self, number: int) -> None:
        """Send a signal to all its processes, as what happens to a machine does."""
        os.killpg(self.program.pid, number)


class Field:
    """One case's system.

    Duties: 1. start workers, and know them; 2. send, one by one or as a stream; 3. wait for what the ledger
    says; 4. see it through to the end and return what is left.

    Args:
        broker: Its broker.
        folder: An empty folder.
        pool: The workers' pool.
        late: Whether tasks are acknowledged late.
        seed: For everything that is left to chance.
        settings: More settings of the program.
        clock: What the workers that go through the proxy read as the time of day.
        celery_python: The interpreter of an environment with real Celery, to run that instead of ours.
    """

    def __init__(
        self,
        broker: Broker,
        folder: Path,
        *,
        pool: str,
        late: bool,
        seed: int,
        settings: Mapping[str, Any],
        clock: WallClock | None = None,
        celery_python: Path | None = None,
    ) -> None:
        self._celery_python = celery_python
        self.broker = broker
        self.clock = clock
        self.folder = folder
        self.pool = pool
        self.dice = random.Random(seed)
        self.ledger = Ledger(folder / "ledger")
        self.nodes: list[Node] = []
        self.environment: dict[str, str] = {}  # more of it, for the workers that are started from now on
        self.resumed_seconds: float | None = None
        self._reader = Reader(folder / "ledger")
        self._entries: list[Entry] = []
        self._told: dict[str, str] = {}
        self._sent = 0
        self._lock = threading.Lock()
        self._calm = threading.Lock()  # while somebody has it the stream sends nothing
        self._open = contextlib.ExitStack()
        self._settings = {
            "worker_lease_seconds": LEASE_SECONDS,
            "task_acks_late": late,
            "task_reject_on_worker_lost": late,
            "task_default_queue_type": "quorum" if broker.kind == "quorum" else "classic",
            "broker_connection_retry_on_startup": True,
            "publish_timeout_seconds": 5.0,
            **settings,
        }
        self.app = self._client(broker.for_client())

    # --- workers ---

    def start_worker(self, *options: str, direct: bool = False) -> Node:
        """Start one more and return it when it takes tasks.

        Args:
            *options: Of the command line.
            direct: Connect it to the broker itself and not to the proxy.
        """
        name = f"w{len(self.nodes) + 1}@here"
        options = (*options, "-l", "INFO")
        size = [] if self.pool == "solo" else ["-c", str(SLOTS)]
        command = [self._python, "-m", "celeriac" if self._celery_python is None else "celery"]
        program = Program(
            [*command, "-A", "faults.program", "worker", "-n", name, "-P", self.pool, *size, *options],
            cwd=self.folder,
            env=self.program_environment(direct=direct),
        )
        self._open.callback(program.end)
        node = Node(name, program)
        self.nodes.append(node)
        program.wait_for(rf"{name} ready\.")
        return node

    def start_sender(self, prefix: str, count: int, how: str, pause_seconds: float) -> Program:
        """Start a client in a process of its own."""
        arguments = [prefix, str(count), how, str(pause_seconds)]
        program = Program(
            [self._python, "-m", "faults.sender", *arguments],
            cwd=self.folder,
            env=self.program_environment(direct=True),
        )
        self._open.callback(program.end)
        return program

    def program_environment(self, *, direct: bool) -> dict[str, str]:
        """Return the environment of a worker or client."""
        environment = user_environment(
            self.folder,
            FAULTS_FOLDER=str(self.folder),
            FAULTS_BROKER=self.broker.url if direct else self.broker.through(self.broker.url),
            FAULTS_RESULTS=self.broker.results if direct else self.broker.through(self.broker.results),
            FAULTS_SETTINGS=json.dumps(self._settings),
            **self.environment,
        )
        ours = environment["PYTHONPATH"].split(os.pathsep) if self._celery_python is None else []
        environment["PYTHONPATH"] = os.pathsep.join([*ours, str(ROOT / "tests")])
        if self.clock is not None and not direct:
            environment.update(self.clock.additions(environment["PYTHONPATH"]))
        return environment

    def node_of(self, pid: int) -> Node:
        """Return the worker that a process belongs to."""
        return next(node for node in self.nodes if pid in {process.pid for process in node.family()})

    # --- sending ---

    def send(
        self,
        how: str = "quick",
        count: int = 1,
        *,
        countdown: float | None = None,
        task: str = "faults.work",
        **options: Any,
    ) -> list[str]:
        """Send some calls and return their ids; those that are refused are among them.

        Args:
            how: What they do.
            count: How many.
            countdown: Seconds; the ids begin with ``due@`` and the moment before which none may begin.
            task: The task's name.
            **options: Of the calls.
        """
        sent = []
        for _ in range(count):
            with self._lock:
                self._sent += 1
                key = f"{how}-{self._sent}-{self.folder.name}"
            if countdown is not None:
                key = f"due@{time.monotonic() + countdown}@{key}"
            self.ledger.write("intent", key)
            try:
                self.app.send_task(task, (how,), task_id=key, countdown=countdown, **options)
            except Exception as exc:
                self.ledger.write("refused", key, state=type(exc).__name__)
            else:
                self.ledger.write("confirmed", key)
            sent.append(key)
        return sent

    @contextlib.contextmanager
    def stream(self, pause_seconds: float = 0.02) -> Iterator[None]:
        """Send calls that do next to nothing as long as the block lasts, one by one."""
        enough = threading.Event()

        def send() -> None:
            while not enough.wait(pause_seconds):
                with self._calm:
                    self.send(self.dice.choice(["quick", "quick", "nap"]))

        thread = threading.Thread(target=send, name="stream")
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join(PATIENCE_SECONDS)

    @contextlib.contextmanager
    def lull(self) -> Iterator[None]:
        """Interrupt the stream: what has begun has ended, or was held, and the broker has been told of it."""

        def nothing_runs() -> bool | None:
            running = keys(self.entries(), "start") - keys(self.entries(), "end")
            return all(key.startswith("hold") for key in running) or None

        with self._calm:
            time.sleep(_LULL_SECONDS)  # for what was sent to begin
            self.until(nothing_runs, "what has begun to end")
            time.sleep(_LULL_SECONDS)  # for that to be told
            yield
            time.sleep(_LULL_SECONDS)  # for the latest answer of the broker to be an old one

    def release(self) -> None:
        """Let the tasks go on that are held."""
        (self.folder / "go").touch()

    # --- looking ---

    def entries(self) -> list[Entry]:
        """Return all of the ledger so far."""
        self._entries += self._reader.news()
        return self._entries

    def wait_for(self, what: What, wanted: Collection[str] | int) -> list[Entry]:
        """Return the entries of a kind once all of these calls have one, or once there are so many.

        Raises:
            AssertionError: They did not come.
        """

        def found() -> list[Entry] | None:
            entries = [entry for entry in self.entries() if entry.what == what]
            if isinstance(wanted, int):
                return entries if len(entries) >= wanted else None
            return entries if keys(entries, what) >= set(wanted) else None

        return self.until(found, f"{what} of {wanted}")

    def until(self, look: Callable[[], Answer | None], doing: str) -> Answer:
        """Look until something other than None is there.

        Raises:
            AssertionError: It did not come; with the workers' last words.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (answer := look()) is None:
            assert time.monotonic() < deadline, (
                f"waited {PATIENCE_SECONDS} s for {doing}\n{self.last_words()}"
            )
            time.sleep(LOOK_SECONDS)
        return answer

    def last_words(self) -> str:
        """Return what the workers have printed lately."""
        return "\n".join(f"--- {node.name}\n{node.program.output[-3000:]}" for node in self.nodes)

    def gone(self, family: Sequence[psutil.Process]) -> None:
        """Wait until processes have ended.

        Raises:
            AssertionError: Some still run.
        """
        _, alive = psutil.wait_procs(family, timeout=PATIENCE_SECONDS)
        left = [process for process in alive if process.is_running() and process.status() != "zombie"]
        assert not left, f"still running: {left}"

    def look_at_results(self) -> None:
        """Write down the results that are new to the client."""
        self._tell()

    def wait_until_told(self, wanted: Collection[str]) -> None:
        """Wait until the client knows the ends of calls.

        Raises:
            AssertionError: They did not come.
        """

        def told() -> bool | None:
            self._tell()
            return self._told.keys() >= set(wanted) or None

        self.until(told, f"the ends of {wanted}")

    def pool_of(self, node: Node) -> dict[str, Any]:
        """Return what a worker says of its pool; empty when it does not answer in time."""
        answers = self.app.control.inspect([node.name], timeout=LEASE_SECONDS).stats() or {}
        pool: dict[str, Any] = answers.get(node.name, {}).get("pool", {})
        return pool

    # --- the end ---

    def probe(self) -> None:
        """Send until a call has run, and remember how long that took."""
        began = time.monotonic()
        while True:
            (key,) = self.send()
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline:
                if key in keys(self.entries(), "end"):
                    self.resumed_seconds = time.monotonic() - began
                    return
                if key in keys(self.entries(), "refused"):
                    break
                time.sleep(LOOK_SECONDS)
            assert time.monotonic() - began < PATIENCE_SECONDS, f"nothing gets through\n{self.last_words()}"

    def see_through(self, *, silent_deaths: bool = False) -> set[str]:
        """Wait until the broker holds nothing and every result was told; return the calls that are left.

        Does not wait for ever: what does not come is the checker's business.

        Args:
            silent_deaths: Of a run that has begun, nothing more need come.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        held = 1
        while time.monotonic() < deadline:
            self._tell()
            if self._missing(silent_deaths):
                time.sleep(LOOK_SECONDS)
                continue
            held = self.broker.held()
            if not held:
                break
            time.sleep(5 * LOOK_SECONDS)
        for node in self.nodes:
            with contextlib.suppress(ProcessLookupError):
                node.signal(signal.SIGCONT)
                node.signal(signal.SIGTERM)
        for node in self.nodes:
            node.program.finish()
        self._tell(again=True)
        return asyncio.run(self._drain()) if held or self.broker.held() else set()

    def letters(self) -> list[Letter]:
        """Return the dead letters."""
        return list(self.app.transport.graveyard().find(QUEUE))

    def close(self) -> None:
        """End everything."""
        self._open.close()
        forget_the_dead()
        self.app.close()
        self.ledger.close()
        self.broker.close()

    @property
    def _python(self) -> str:
        return sys.executable if self._celery_python is None else str(self._celery_python)

    def _client(self, url: str) -> Celeriac:
        app = Celeriac("faults", broker=url, backend=self.broker.results, set_as_current=False)
        app.conf.update(self._settings)
        return app

    def _missing(self, silent_deaths: bool) -> set[str]:
        """Return the confirmed calls of which no end was told and should be."""
        begun = keys(self.entries(), "start") if silent_deaths else set()
        return keys(self.entries(), "confirmed") - self._told.keys() - begun

    def _tell(self, *, again: bool = False) -> None:
        """Write down the results that are new to the client; with ``again`` also those that have changed."""
        sent = keys(self.entries(), "intent")
        wanted = sorted(sent if again else sent - self._told.keys())
        assert self.app.backend is not None
        for key, outcome in self.app.backend.fetch(wanted).items():
            if outcome.state in READY_STATES and self._told.get(key) != outcome.state:
                self._told[key] = outcome.state
                self.ledger.write("told", key, state=outcome.state)

    async def _drain(self) -> set[str]:
        """Take what is left at the broker, also what dead workers held, and return its calls."""
        spec = ConsumeSpec(
            queues=self.app.router.consume_from(), node="last@here", lease_seconds=LEASE_SECONDS
        )
        consumer = await self.app.transport.consumer(spec)
        left: set[str] = set()
        with contextlib.suppress(TimeoutError):
            while True:
                deliveries = await asyncio.wait_for(consumer.receive(500), _DRAIN_SECONDS)
                left.update(str(delivery.envelope.headers.get("id")) for delivery in deliveries)
                await ack(consumer, deliveries)
        await consumer.close()
        return left
