"""The command ``worker`` says what is wrong before it starts, to the person who typed it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from processes import Program, user_environment

PROGRAM = """
from celeriac import Celeriac
app = Celeriac("prog", broker="memory://", task_create_missing_queues=False)
"""
HOPEFUL = """
from celeriac import Celeriac
app = Celeriac("prog", broker="memory://", worker_timer="prog:Timer")
"""


def test_an_error_at_start_is_told_as_it_is_and_not_as_a_log_line(tmp_path: Path) -> None:
    (tmp_path / "prog.py").write_text(PROGRAM)

    done = subprocess.run(
        [sys.executable, "-m", "celeriac", "-A", "prog", "worker", "-Q", "nowhere"],
        cwd=tmp_path,
        env=user_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("Error: ") and "nowhere" in line]
    assert "WARNING/MainProcess" not in done.stderr


def test_a_setting_without_effect_is_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "prog.py").write_text(HOPEFUL)

    with Program(
        [sys.executable, "-m", "celeriac", "-A", "prog", "worker", "-P", "solo", "-l", "info"],
        cwd=tmp_path,
        env=user_environment(tmp_path),
    ) as worker:
        worker.wait_for(r"have no effect in this version: worker_timer\.")
        worker.wait_for(r" ready\.")
        assert worker.stop() == 0
