"""Children that begin as programs of their own: ``worker_pool_start_method = "spawn"``."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from celeriac.app import Celeriac
from celeriac.errors import ConfigError
from celeriac.node.options import NodeOptions
from celeriac.node.worker import Worker
from processes import PATIENCE_SECONDS, Program, celery, run, user_environment

PROJECT = """
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from celery import Celery
from celery.signals import worker_init, worker_process_init

HERE = Path(__file__).parent
app = Celery("proj", broker=f"sqlite:///{HERE}/q.db", backend=f"sqlite:///{HERE}/q.db")
app.conf.worker_pool_start_method = "spawn"
app.conf.worker_lease_seconds = 1.5
app.conf.worker_proc_alive_timeout = 60  # a busy machine

# What a forked process would have the lock of, and no thread.
ticks = []
threading.Thread(target=lambda: [ticks.append(time.sleep(0.01)) for _ in iter(int, 1)], daemon=True).start()

@worker_init.connect
def in_parent(**kwargs):
    sys.a_mark_of_the_parent = True

@worker_process_init.connect
def in_child(**kwargs):
    with (HERE / "begun").open("a") as file:
        file.write("x")

@app.task
def look():
    before = len(ticks)
    while len(ticks) == before:
        time.sleep(0.01)
    program = "import os; print(os.listdir('/proc/self/fd'))"
    environment = dict(os.environ)
    return {
        "pid": os.getpid(),
        "copied": hasattr(sys, "a_mark_of_the_parent"),
        "child": environment.get("CELERIAC_CHILD"),
        "open": subprocess.check_output([sys.executable, "-c", program], close_fds=False).decode(),
        "broker": app.conf.broker_url,
        "name": open("/proc/self/comm").read().strip(),
    }

@app.task
def die():
    os.kill(os.getpid(), 9)

@app.task
def hold():
    (HERE / "held").touch()
    time.sleep(60)
"""

Start = Callable[..., Program]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "proj.py").write_text(PROJECT)
    return tmp_path


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    programs: list[Program] = []

    def start_worker(*options: str) -> Program:
        before = ("-A", "proj", "-b", f"sqlite:///{home}/other.db")
        command = celery(*before, "worker", "-l", "info", "-n", "w1@here", *options)
        program = Program(command, cwd=home, env=user_environment(home))
        programs.append(program)
        program.wait_for(r"w1@here ready\.")
        return program

    yield start_worker
    for program in programs:
        program.end()


def ask(home: Path, call: str) -> Any:
    """Have a client evaluate an expression with the project's names and return what it prints as JSON."""
    other = f"sqlite:///{home}/other.db"
    program = f"from proj import *; app.conf.broker_url = {other!r}; print(json.dumps({call}))"
    return json.loads(run(["python", "-c", program], cwd=home, env=user_environment(home)).strip())


def children(worker: Program) -> list[psutil.Process]:
    return psutil.Process(worker.pid).children(recursive=True)


def test_children_are_programs_of_their_own_with_the_settings_of_the_command_line(
    home: Path, start: Start
) -> None:
    worker = start("-c", "2", "--pidfile", "w.pid")

    seen = ask(home, "look.delay().get(timeout=60)")

    forker, *spawned = sorted(children(worker), key=lambda process: process.create_time())
    assert len(spawned) == 2
    assert seen["pid"] in [process.pid for process in spawned]
    assert all(process.cmdline()[1:] == psutil.Process(worker.pid).cmdline()[1:] for process in spawned)
    assert not seen["copied"]  # what the parent did once it was loaded
    assert seen["child"] is None  # and the programs of tasks are not taken for children
    assert len(json.loads(seen["open"].replace("'", '"'))) <= 4  # standard ones, and that of listdir
    assert seen["broker"].endswith("other.db")
    assert seen["name"].startswith("ForkPoolWorker-")
    worker.wait_for(r"INFO/ForkPoolWorker-\d\] Task proj\.look\[.* succeeded")
    assert (home / "begun").read_text() == "xx"
    assert worker.output.count("concurrency:") <= 1  # one banner
    assert worker.stop() == 0
    assert psutil.wait_procs([forker, *spawned], timeout=PATIENCE_SECONDS)[1] == []


def test_a_spawned_child_that_dies_is_replaced_and_one_that_has_served_is_too(
    home: Path, start: Start
) -> None:
    worker = start("-c", "1", "--max-tasks-per-child", "2")

    loss = ask(home, "repr(die.delay().get(timeout=60, propagate=False))")
    pids = ask(home, "[look.delay().get(timeout=60)['pid'] for _ in range(5)]")

    assert "signal 9 (SIGKILL)" in loss
    assert len(set(pids)) == 3  # two tasks each; the first one has told of the loss before
    assert worker.stop() == 0


@pytest.mark.parametrize("victim", ["parent", "forker"])
def test_nothing_is_left_of_spawned_children(home: Path, start: Start, victim: str) -> None:
    worker = start("-c", "2")
    family = children(worker)
    ask(home, "hold.delay().id")
    end = time.monotonic() + PATIENCE_SECONDS
    while not (home / "held").exists():
        assert time.monotonic() < end
        time.sleep(0.01)

    forker = min(family, key=lambda process: process.create_time())
    os.kill(worker.pid if victim == "parent" else forker.pid, signal.SIGKILL)

    assert worker.finish() == (-signal.SIGKILL if victim == "parent" else 1)
    assert len(family) == 3
    assert psutil.wait_procs(family, timeout=PATIENCE_SECONDS)[1] == []


@pytest.mark.parametrize(
    ("method", "why"), [("spawn", "Use the worker command"), ("thread", "fork, forkserver and spawn")]
)
def test_a_start_method_that_cannot_be_is_told(method: str, why: str) -> None:
    app = Celeriac("proj", broker="memory://", set_as_current=False)
    app.conf.worker_pool_start_method = method

    with pytest.raises(ConfigError, match=why):
        Worker(app, NodeOptions(hostname="w1@here"))
