"""Workers are started in the background by one command, replaced and stopped by others."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from celeriac.cli.pidfile import running_pid

PROGRAM = """
from celeriac import Celeriac
app = Celeriac("fleet", broker="sqlite:///broker.db")
"""


def _multi(folder: Path, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "celeriac", "multi", command, "2", "-A", "fleet", "-P", "solo"),
            *(f"--pidfile={folder}/run/%n.pid", f"--logfile={folder}/log/%n%I.log", *options),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _pids(folder: Path) -> list[int | None]:
    return [running_pid(f"{folder}/run/celery{number}.pid") for number in (1, 2)]


def _wait_for_pids(folder: Path) -> list[int]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pids = [pid for pid in _pids(folder) if pid is not None]
        if len(pids) == 2:
            return pids
        time.sleep(0.05)
    raise AssertionError(f"They did not start: {[file.read_text() for file in folder.glob('log/*')]}")


def test_workers_go_on_in_the_background_until_they_are_stopped(tmp_path: Path) -> None:
    (tmp_path / "fleet.py").write_text(PROGRAM)
    try:
        started = _multi(tmp_path, "start")
        assert (started.returncode, started.stdout.count(": OK")) == (0, 2), started
        first = _wait_for_pids(tmp_path)

        again = _multi(tmp_path, "start")
        assert (again.returncode, again.stdout.count("FAILED")) == (1, 2), again
        assert _pids(tmp_path) == first

        assert _multi(tmp_path, "restart").returncode == 0
        second = _wait_for_pids(tmp_path)
        assert not set(first) & set(second)
    finally:
        stopped = _multi(tmp_path, "stopwait")
    assert stopped.returncode == 0
    assert "> Waiting for 2 nodes -> " in stopped.stdout
    assert _pids(tmp_path) == [None, None]


def test_a_program_that_cannot_be_loaded_is_told_at_once(tmp_path: Path) -> None:
    failed = _multi(tmp_path, "start")

    assert failed.returncode == 1
    assert "The module fleet was not found." in failed.stderr
    assert failed.stdout.count("FAILED") == 2
