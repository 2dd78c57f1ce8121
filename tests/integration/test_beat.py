"""``celery beat`` as a user runs it: it sends what is due, and a sudden end doubles and loses nothing."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from health_probe import until
from processes import Program, celery, user_environment

PROGRAM = """
from celery import Celery
app = Celery("prog", broker="sqlite:///broker.db", result_backend=None)

@app.task(name="prog.often")
def often():
    pass

app.conf.beat_schedule = {"often": {"task": "prog.often", "schedule": 0.2}}

@app.on_after_finalize.connect
def periodic(sender, **kwargs):
    sender.add_periodic_task(1000.0, sender.signature("prog.seldom"), name="seldom")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a program with periodic tasks."""
    (tmp_path / "prog.py").write_text(PROGRAM)
    return tmp_path


def beat(folder: Path, *arguments: str) -> Program:
    """Start beat there."""
    command = celery("-A", "prog", "beat", "-l", "info", *arguments)
    return Program(command, cwd=folder, env=user_environment(folder))


def runs(folder: Path) -> dict[str, int]:
    """Return how often each entry was sent, as its broker knows."""
    app = _app(folder)
    try:
        return {info.name: info.times for info in app.schedules.list()}
    finally:
        app.close()


def test_it_sends_what_is_due_and_ends_when_told_to(folder: Path) -> None:
    with beat(folder, "--max-interval", "7", "--pidfile", "beat.pid") as program:
        program.wait_for(r"celery beat v.* is starting\.")
        program.wait_for(r"\. db -> .*/broker\.db")
        program.wait_for(r"\. maxinterval -> 7\.00 seconds \(7s\)")
        program.wait_for(r"beat: Starting\.\.\.")
        program.wait_for(r"Scheduler: Sending due task often \(prog\.often\)")
        with beat(folder, "--pidfile", "beat.pid") as second:
            second.wait_for(r"Pidfile .* already exists")
            assert second.finish() == 73

        assert program.stop() == 0

    assert "beat: Shutting down..." in program.output
    assert runs(folder)["often"] >= 1
    assert runs(folder)["seldom"] == 0
    assert not (folder / "beat.pid").exists()


def test_a_worker_sends_periodic_tasks_too_and_takes_the_scheduler_along(folder: Path) -> None:
    command = celery("-A", "prog", "worker", "-B", "-s", "embedded", "-l", "info", "-c", "1")
    with Program(command, cwd=folder, env=user_environment(folder)) as worker:
        worker.wait_for(r"beat: Starting\.\.\.")
        worker.wait_for(r"Task prog\.often\[.*\] succeeded", count=2)

        assert worker.stop() == 0

    assert "beat: Shutting down..." in worker.output
    assert (folder / "embedded").exists()


def test_a_worker_that_begins_anew_has_one_scheduler(folder: Path) -> None:
    with (folder / "prog.py").open("a") as program:
        program.write('app.conf.beat_http_address = "unix:health"\n')
    command = celery("-A", "prog", "worker", "-B", "-l", "info", "-c", "1")
    with Program(command, cwd=folder, env=user_environment(folder)) as worker:
        worker.wait_for(r"beat: Starting\.\.\.")
        worker.wait_for(r" ready\.")
        until(str(folder / "health"), "/readyz", 200)

        worker.signal(signal.SIGHUP)

        worker.wait_for(r"beat: Shutting down\.\.\.")
        worker.wait_for(r"beat: Starting\.\.\.", count=2)
        worker.wait_for(r" ready\.", count=2)
        worker.wait_for(r"Health and figures at unix:health", count=2)
        until(str(folder / "health"), "/readyz", 200)
        assert worker.stop() == 0
    assert worker.output.count("beat: Shutting down...") == 2


def test_the_scheduler_of_a_killed_worker_ends(folder: Path) -> None:
    command = celery("-A", "prog", "worker", "-B", "-l", "info", "-P", "solo")
    with Program(command, cwd=folder, env=user_environment(folder)) as worker:
        worker.wait_for(r"Sending due task often")
        worker.signal(signal.SIGKILL)

        worker.wait_for(r"beat: Shutting down\.\.\.")


def test_a_killed_scheduler_knows_what_it_sent(folder: Path) -> None:
    for _ in range(3):
        with beat(folder) as program:
            program.wait_for(r"Sending due task often", count=2)
            program.signal(signal.SIGKILL)
            program.finish()
    noted = runs(folder)["often"]

    app = _app(folder)
    try:
        # Each may have sent a call that it could not note any more; a later slot followed.
        assert noted <= app.transport.size("celery") <= noted + 3
    finally:
        app.close()


def test_a_file_that_is_named_is_used_instead_of_the_broker(folder: Path) -> None:
    (folder / "schedule").write_bytes(b"no database" * 1000)
    with beat(folder, "-s", "schedule") as program:
        program.wait_for(r"\. db -> .*/schedule")
        program.wait_for(r"cannot be read \(file is not a database\); it is now .*\.unreadable-")
        program.wait_for(r"Sending due task often")
        assert program.stop() == 0

    assert not runs(folder)
    assert (folder / "schedule").read_bytes().startswith(b"SQLite format 3")


def test_a_program_may_run_one_itself(folder: Path) -> None:
    (folder / "own.py").write_text(
        "from prog import app\n"
        "app.Beat(7, loglevel='info', schedule='kept', pidfile='own.pid', no_color=True).run()\n"
        "print('afterwards')\n"
    )
    with Program([sys.executable, "own.py"], cwd=folder, env=user_environment(folder)) as program:
        program.wait_for(r"\. db -> .*/kept")
        program.wait_for(r"\. maxinterval -> 7\.00 seconds \(7s\)")
        program.wait_for(r"Sending due task often")
        assert (folder / "own.pid").exists()
        assert program.stop() == 0

    assert "afterwards" in program.output
    assert not (folder / "own.pid").exists()


def test_it_goes_on_in_the_background(folder: Path) -> None:
    with beat(folder, "--detach", "--pidfile", "beat.pid", "-f", "beat.log") as program:
        assert program.finish() == 0
    _wait_for(lambda: (folder / "beat.log").exists() and "Sending due" in (folder / "beat.log").read_text())

    pid = int((folder / "beat.pid").read_text())
    os.kill(pid, signal.SIGTERM)

    _wait_for(lambda: not (folder / "beat.pid").exists())
    assert "beat: Shutting down..." in (folder / "beat.log").read_text()


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.05)


def _app(folder: Path) -> Any:
    celeriac = importlib.import_module("celeriac")
    return celeriac.Celeriac("prog", broker=f"sqlite:///{folder}/broker.db")
