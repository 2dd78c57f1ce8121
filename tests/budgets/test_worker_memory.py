"""What the processes of a worker load, and that it is loaded once for all of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from celeriac import Celeriac
from processes import Program, user_environment

PROGRAM = """
import os, sys
from celery import Celery

app = Celery("program", broker=os.environ["BROKER"], backend=os.environ["BROKER"])

@app.task
def loaded():
    return sorted(sys.modules)
"""
UNWANTED = (
    "calendar",
    "celeriac.beat",
    "celeriac.node.health.server",
    "celeriac.schedules",
    "http",
    "importlib.resources",
    "logging.handlers",
    "lzma",
    "pickle",
    "shutil",
    "stringprep",
    "tempfile",
    "zoneinfo",
)


@pytest.mark.redis
def test_a_child_loads_nothing_for_its_first_task_that_it_was_not_forked_with(
    tmp_path: Path, redis_url: str
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "celery", "-A", "program", "worker", "-c", "1", "-l", "info"]
    app = Celeriac("client", broker=redis_url, backend=redis_url)

    environment = user_environment(tmp_path, BROKER=redis_url)
    with Program(command, cwd=tmp_path, env=environment) as worker:
        worker.wait_for("ready")
        first, second = (set(app.send_task("program.loaded").get(timeout=30)) for _ in range(2))
    app.close()

    assert second - first == set()
    assert first & set(UNWANTED) == set()
