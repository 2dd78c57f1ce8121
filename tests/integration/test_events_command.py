"""``celery events`` as a user runs it."""

from __future__ import annotations

import signal
import sqlite3
from pathlib import Path

import pytest

from processes import Program, celery, run, user_environment

PROGRAM = """
from celery import Celery
from celery.events.snapshot import Polaroid

app = Celery("prog", broker="sqlite:///broker.db", backend="sqlite:///broker.db")


@app.task(name="prog.add")
def add(x, y):
    return x + y


class Camera(Polaroid):
    clear_after = True

    def on_shutter(self, state):
        names = sorted(worker.hostname for worker in state.alive_workers())
        print("seen", state.event_count, names, flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a program."""
    (tmp_path / "prog.py").write_text(PROGRAM)
    return tmp_path


def start(folder: Path, *arguments: str) -> Program:
    """Start a command there."""
    return Program(celery("-A", "prog", *arguments), cwd=folder, env=user_environment(folder))


def call(folder: Path) -> str:
    """Send a task and return its id."""
    command = celery("-A", "prog", "call", "prog.add", "-a", "[1, 2]")
    return run(command, cwd=folder, env=user_environment(folder)).strip()


def test_every_event_is_dumped_as_a_line(folder: Path) -> None:
    with start(folder, "events", "--dump") as dump:
        dump.wait_for("evdump: starting capture")
        with start(
            folder, "worker", "-E", "-c", "1", "-n", "w1@box", "--heartbeat-interval", "0.2"
        ) as worker:
            dump.wait_for(
                r"^w1@box \[\d{4}-\d\d-\d\d .*\+00:00\] heartbeat: active=0, clock=\d+, freq=0\.2, "
            )
            uuid = call(folder)
            dump.wait_for(rf"task received: prog\.add\({uuid}\) args=.* kwargs=.*, retries=0, ")
            dump.wait_for(rf"task succeeded: prog\.add\({uuid}\).* result=3, ")
            worker.signal(signal.SIGTERM)
            dump.wait_for(r"^w1@box .* shutdown: ")
        dump.signal(signal.SIGTERM)
        assert dump.finish() == 0


def test_a_camera_looks_at_the_state(folder: Path) -> None:
    with start(folder, "events", "--camera", "prog.Camera", "--frequency", "0.1") as camera:
        camera.wait_for(r"-> evcam: Taking snapshots with prog\.Camera \(every 0\.1 secs\.\)")
        with start(folder, "worker", "-c", "1", "-n", "w1@box", "--heartbeat-interval", "0.2"):
            camera.wait_for(r"seen \d+ \['w1@box'\]")
        camera.signal(signal.SIGTERM)
        assert camera.finish() == 0


def test_a_camera_that_is_not_there_is_an_error_of_use(folder: Path) -> None:
    with start(folder, "events", "--camera", "prog.Kamera") as camera:
        assert camera.finish() == 2
        assert "There is no camera prog.Kamera" in camera.output


def test_nobody_who_listens_costs_nothing_in_the_file(folder: Path) -> None:
    options = ("-E", "-c", "1", "-n", "w1@box", "--heartbeat-interval", "0.1", "--without-mingle")
    with start(folder, "worker", "-l", "info", *options) as worker:
        worker.wait_for(r"ready\.$")
        call(folder)
        worker.wait_for("succeeded")
        worker.signal(signal.SIGTERM)
        worker.finish()

    file = sqlite3.connect(folder / "broker.db")
    assert file.execute("SELECT count(*) FROM broadcasts").fetchone() == (0,)
    file.close()
