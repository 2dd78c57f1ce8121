"""A pid file keeps a second worker away, and only a living one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from celeriac.cli.pidfile import Pidfile, PidfileLocked


def test_a_living_process_keeps_others_away(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    path.write_text(f"{other.pid}\n")

    with pytest.raises(PidfileLocked, match=rf"already running\? \(pid: {other.pid}\)"):
        Pidfile(str(path)).acquire()

    other.communicate(b"\n")
    assert path.read_text() == f"{other.pid}\n"


@pytest.mark.parametrize("content", ["", "not a pid", "99999999"])
def test_a_stale_or_broken_file_is_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "w.pid"
    path.write_text(content)
    lock = Pidfile(str(path))

    removed = lock.acquire()

    assert removed
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()
    assert not path.exists()


def test_a_file_of_ones_own_pid_is_no_news(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    path.write_text(f"{os.getpid()}\n")  # left by the same process before it restarted in place

    assert not Pidfile(str(path)).acquire()
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_file_that_somebody_else_has_taken_over_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    lock = Pidfile(str(path))
    lock.acquire()
    path.write_text("1\n")

    lock.release()

    assert path.read_text() == "1\n"
