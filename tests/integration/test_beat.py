"""``celery beat`` as a user runs it: it sends what is due, and a sudden end doubles and loses nothing."""

from __future__ import annotations

import importlib
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

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


def runs(folder: Path) -> dict[str, Any]:
    """Return how often each entry was sent, as the file of the schedule has it."""
    database = sqlite3.connect(folder / "celerybeat-schedule")
    try:
        return dict(database.execute("SELECT name, count FROM runs").fetchall())
    finally:
        database.close()


def test_it_sends_what_is_due_and_ends_when_told_to(folder: Path) -> None:
    with beat(folder, "--max-interval", "7", "--pidfile", "beat.pid") as program:
        program.wait_for(r"celery beat v.* is starting\.")
        program.wait_for(r"\. db -> celerybeat-schedule")
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
    command = celery("-A", "prog", "worker", "-B", "-l", "info", "-c", "1")
    with Program(command, cwd=folder, env=user_environment(folder)) as worker:
        worker.wait_for(r"beat: Starting\.\.\.")
        worker.wait_for(r" ready\.")

        worker.signal(signal.SIGHUP)

        worker.wait_for(r"beat: Shutting down\.\.\.")
        worker.wait_for(r"beat: Starting\.\.\.", count=2)
        worker.wait_for(r" ready\.", count=2)
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
    sent_and_kept = runs(folder)["often"]

    app = _app(folder)
    try:
        # One call may have been sent by each whose end came before that could be kept.
        assert sent_and_kept <= app.transport.size("celery") <= sent_and_kept + 3
    finally:
        app.close()


def _app(folder: Path) -> Any:
    celeriac = importlib.import_module("celeriac")
    return celeriac.Celeriac("reader", broker=f"sqlite:///{folder}/broker.db")
