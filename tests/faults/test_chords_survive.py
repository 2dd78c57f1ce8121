"""Workers are killed (-9) at the worst moments of a chord: its body runs once, or its failure is told."""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest

from celeriac import chord
from celeriac.errors import ChordError
from processes import Program, user_environment

TIMEOUT = 40.0

PROJECT = """
import os, signal, time
from pathlib import Path
from celeriac import polling
from celeriac.app import Celeriac

HERE = Path(__file__).parent
app = Celeriac("proj", broker="BROKER", backend="BACKEND", set_as_current=False)
app.conf.worker_lease_seconds = 1.5
app.conf.task_max_deliveries = 0
app.conf.result_chord_retry_interval = 0.1
LATE = {"acks_late": True, "reject_on_worker_lost": True}

def once(name):
    try:
        (HERE / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

def deadly(owner, method):
    # When a mark says so, whoever calls this method for that chord or task dies: the child, or with its node.
    real = getattr(owner, method)
    def dies(when, first):
        batch = [] if isinstance(first, str) else first
        for marked in [getattr(each, "chord_id", None) or each.id for each in batch] or [first]:
            mark = HERE / f"mark-{method}-{when}-{marked}"
            if mark.exists():
                whom = mark.read_text()
                mark.unlink()
                if whom.startswith("SIG"):  # nobody dies, the node is told to stop
                    os.kill(int(os.environ["NODE_PID"]), getattr(signal, whom))
                    return
                if whom == "node":
                    os.kill(int(os.environ["NODE_PID"]), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
    def call(self, first, *args):  # a method's, or a function's of an app and a chord
        dies("before", first)
        value = real(self, first, *args)
        dies("after", first)
        return value
    async def acall(self, first, *args):
        dies("before", first)
        value = await real(self, first, *args)
        dies("after", first)
        return value
    setattr(owner, method, acall if method == "count_parts" else call)

if "NODE_PID" in os.environ:
    if not app.backend.joins_chords:
        deadly(polling, "send_body")
    for method in ("store", "encode_part", "count_parts", "chord_part", "end_chord"):
        if hasattr(app.backend, method):
            deadly(type(app.backend), method)

def await_other(task_id):
    while app.backend.fetch([task_id]).get(task_id) is None:
        time.sleep(0.01)

def part(self, value, name=None, other=None, how=()):
    if other:
        await_other(other)
    if how and once(f"armed-{name}"):
        whom, when, method = how
        marked = self.request.id if method == "store" else self.request.group
        (HERE / f"mark-{method}-{when}-{marked}").write_text(whom)
    return value

def body(self, numbers, name):
    with (HERE / f"ran-{name}").open("a") as file:
        file.write(f"{self.request.celeriac_copy}\\n")
    return sum(numbers)

early_part = app.task(name="proj.early_part", bind=True)(part)
late_part = app.task(name="proj.late_part", bind=True, **LATE)(part)
early_body = app.task(name="proj.early_body", bind=True)(body)
late_body = app.task(name="proj.late_body", bind=True, **LATE)(body)

@app.task(name="proj.told", bind=True)  # bound: sent, not called in the worker that tells of the failure
def told(self, task_id, name):
    with (HERE / f"told-{name}").open("a") as file:
        file.write("x\\n")
"""

POLL_ONLY = """
import msgspec
from celeriac.backends.filesystem import FilesystemBackend

class PollOnly(FilesystemBackend):
    joins_chords = False

    def __init__(self, spec):
        super().__init__(msgspec.structs.replace(spec, url="file://FOLDER"))
"""

RUN = """
import logging, os, sys
os.environ["NODE_PID"] = str(os.getpid())
from proj import app
from celeriac.node.options import NodeOptions
from celeriac.node.worker import Worker
logging.basicConfig(level=logging.INFO, format="%(message)s")
name = sys.argv[1]
sys.exit(Worker(app, NodeOptions(hostname=name, pool="prefork", concurrency=2)).run())
"""

# where the child or node dies, and whether a result was there by then
MOMENTS = [
    ("before", "store", False),  # before anything is known; where children store results of parts
    ("before", "encode_part", False),  # the same, where the node does
    ("before", "chord_part", True),  # between storing the result and counting the part, or joining the chord
    ("after", "chord_part", True),  # between the last part and the body's sending
    ("before", "end_chord", True),  # between the body's sending and the end of the chord
    ("after", "end_chord", True),
]

# where it dies that looks for the results of parts
POLLED_MOMENTS = [
    ("before", "send_body", True),
    ("after", "send_body", True),
]

NODE_MOMENTS = [
    ("before", "count_parts"),  # between storing the result and counting the part
    ("after", "count_parts"),  # between counting the last part and having the chord joined
    ("before", "chord_part"),
    ("after", "chord_part"),
    ("before", "end_chord"),
]

T = TypeVar("T")
Start = Callable[[], Program]
HOMES = ["sqlite", "redis", "amqp"]
OTHER_STORES = ["memcached", "polled", "files", "postgres"]  # the broker is the embedded one
SEED = os.environ.get("CELERIAC_FAULTS_SEED", "1")  # "all": a run has the time for a part of it only


def chosen(cases: list[T]) -> list[T]:
    """Return one of the cases, which the seed chooses, or all."""
    return cases if SEED == "all" else [cases[int(SEED) % len(cases)]]


@pytest.fixture(params=HOMES)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder of a project whose broker and store are of some kind."""
    broker = f"sqlite:///{tmp_path}/q.db"
    match request.param:
        case "redis":
            broker = backend = request.getfixturevalue("redis_url")
        case "amqp":
            broker, backend = request.getfixturevalue("rabbitmq_url"), request.getfixturevalue("redis_url")
        case "postgres":
            backend = request.getfixturevalue("postgres_server").fresh_url("db+postgresql")
        case "memcached":
            backend = request.getfixturevalue("memcached_server").url
        case "files":
            backend = f"file://{tmp_path}"
        case "polled":
            backend = f"poll_only_{tmp_path.name}:PollOnly"
            text = POLL_ONLY.replace("FOLDER", str(tmp_path))
            (tmp_path / f"poll_only_{tmp_path.name}.py").write_text(text)
            request.getfixturevalue("monkeypatch").syspath_prepend(tmp_path)
        case _:
            backend = broker
    (tmp_path / "proj.py").write_text(PROJECT.replace("BROKER", broker).replace("BACKEND", backend))
    (tmp_path / "run_worker.py").write_text(RUN)
    return tmp_path


@pytest.fixture
def proj(home: Path) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("proj", home / "proj.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    module.app.close()


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    programs: list[Program] = []
    numbers = itertools.count(1)

    def start_worker() -> Program:
        name = f"w{next(numbers)}@here"
        program = Program([sys.executable, "run_worker.py", name], cwd=home, env=user_environment(home))
        programs.append(program)
        program.wait_for(rf"{name} ready\.")
        return program

    yield start_worker
    for program in programs:
        program.end()


def send(proj: ModuleType, name: str, ack: str, how: tuple[str, ...]) -> Any:
    """Send a chord of two parts, the second of which dies once."""
    part, body = getattr(proj, f"{ack}_part"), getattr(proj, f"{ack}_body")
    first = part.s(1).set(task_id=f"first-{name}")
    second = part.s(2, name, f"first-{name}", how)
    return chord([first, second])(body.s(name).on_error(proj.told.s(name)))


def await_deaths(home: Path) -> None:
    """Wait until everybody has died who was to."""
    end = time.monotonic() + TIMEOUT
    while marks := list(home.glob("mark-*")):
        assert time.monotonic() < end, f"Nobody has died of {marks}"
        time.sleep(0.02)


def moments(proj: ModuleType) -> list[tuple[str, str, bool]]:
    """Return the moments in which workers may die, with a result store like this one's."""
    if not proj.app.backend.joins_chords:
        return POLLED_MOMENTS
    return [moment for moment in MOMENTS if moment[1] not in not_called(proj)]


def not_called(proj: ModuleType) -> tuple[str, ...]:
    """Return the methods of the result store that workers do not need for parts of chords."""
    return ("store",) if hasattr(proj.app.backend, "count_parts") else ("encode_part", "count_parts")


def lines(home: Path, name: str) -> list[str]:
    """Return the lines of a file of the project; none when it is not there."""
    path = home / name
    return path.read_text().splitlines() if path.exists() else []


def check(home: Path, name: str, result: Any, *, may_fail: bool) -> None:
    """Have a chord end, its body run by one copy or its errback run once."""
    value = result.get(timeout=TIMEOUT, follow_parents=False, propagate=False)
    if may_fail and isinstance(value, ChordError):
        end = time.monotonic() + TIMEOUT
        while not lines(home, f"told-{name}"):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert lines(home, f"ran-{name}") == []
    else:
        assert value == 3, f"{name}: {value!r}"
        assert len(set(lines(home, f"ran-{name}"))) == 1
        assert lines(home, f"told-{name}") == []


@pytest.mark.parametrize("home", HOMES + chosen(OTHER_STORES), indirect=True)
def test_a_child_that_dies_at_any_moment_leaves_the_chord_as_it_should_be(
    home: Path, proj: ModuleType, start: Start
) -> None:
    start()

    sent = {}
    for (when, method, known), ack in itertools.product(moments(proj), ["early", "late"]):
        name = f"{when}-{method}-{ack}"
        sent[name] = send(proj, name, ack, ("child", when, method)), ack == "early" and not known

    for name, (result, may_fail) in sent.items():
        check(home, name, result, may_fail=may_fail)
        assert (home / f"armed-{name}").exists()
    await_deaths(home)
    for name in sent:
        runs, told = lines(home, f"ran-{name}"), lines(home, f"told-{name}")
        assert len(runs) + len(told) == 1, f"{name}: {runs}, {told}"


@pytest.mark.parametrize("moment", NODE_MOMENTS, ids=" ".join)
def test_a_worker_that_dies_as_a_whole_leaves_the_chord_to_another(
    home: Path, proj: ModuleType, start: Start, moment: tuple[str, str]
) -> None:
    when, method = moment
    if method in not_called(proj):
        method = "store"  # what comes closest
    worker = start()
    result = send(proj, "it", "late", ("node", when, method))
    worker.finish()

    start()

    check(home, "it", result, may_fail=False)


@pytest.mark.parametrize(
    ("home", "moment"),
    chosen(
        [
            ("polled", ("after", "send_body")),
            ("polled", ("before", "send_body")),
            ("memcached", ("after", "chord_part")),
            ("files", ("before", "end_chord")),
            ("postgres", ("after", "count_parts")),
        ]
    ),
    indirect=["home"],
)
def test_a_worker_that_dies_as_a_whole_leaves_the_chord_to_another_with_any_store(
    home: Path, proj: ModuleType, start: Start, moment: tuple[str, str]
) -> None:
    worker = start()
    result = send(proj, "it", "late", ("node", *moment))
    worker.finish()

    start()

    check(home, "it", result, may_fail=False)


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGQUIT"])
def test_a_worker_that_is_told_to_stop_while_a_chord_is_completed_sends_its_body_before_it_ends(
    home: Path, proj: ModuleType, start: Start, signal_name: str
) -> None:
    method = "chord_part" if "count_parts" in not_called(proj) else "count_parts"
    worker = start()
    result = send(proj, "it", "early", (signal_name, "before", method))
    assert worker.finish() == 0
    await_deaths(home)

    start()

    check(home, "it", result, may_fail=False)


def test_workers_that_are_killed_at_random_lose_and_double_nothing(
    home: Path, proj: ModuleType, start: Start
) -> None:
    dice = random.Random()
    workers = [start(), start()]
    results = {}
    for number in range(40):
        name = f"r{number}"
        results[name] = chord([proj.late_part.s(1), proj.late_part.s(2)])(
            proj.late_body.s(name).on_error(proj.told.s(name))
        )
        if number % 10 == 5:
            victim = workers.pop(dice.randrange(2))
            victim.end()
            workers.append(start())

    for name, result in results.items():
        check(home, name, result, may_fail=False)


def test_a_worker_that_has_to_stop_at_once_tells_the_chord_of_its_running_parts(
    home: Path, proj: ModuleType, start: Start
) -> None:
    worker = start()
    result = chord([proj.early_part.s(1), proj.early_part.s(2, None, "never")])(
        proj.early_body.s("it").on_error(proj.told.s("it"))
    )
    worker.wait_for(r"succeeded in")

    worker.signal(signal.SIGQUIT)
    assert worker.finish() == 0

    value = result.get(timeout=TIMEOUT, follow_parents=False, propagate=False)
    assert isinstance(value, ChordError)
    start()
    check(home, "it", result, may_fail=True)
