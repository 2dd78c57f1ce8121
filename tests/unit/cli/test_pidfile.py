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


@pytest.mark.parametrize("content", ["not a pid", "99999999", "9" * 30, "0", "-1"])
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


def test_our_own_pid_is_nothing_stale(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    path.write_text(f"{os.getpid()}\n")  # we were executed anew

    assert not Pidfile(str(path)).acquire()


def test_of_many_that_find_a_stale_file_one_takes_it_over(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    path.write_text("99999999\n")
    program = (
        "import sys\nfrom celeriac.cli.pidfile import Pidfile, PidfileLocked\n"
        "print(flush=True)\ninput()\n"
        "try: Pidfile(sys.argv[1]).acquire()\nexcept PidfileLocked: print('locked')\nelse: print('ours')\n"
        "sys.stdout.flush()\ninput()\n"
    )
    many = [
        subprocess.Popen(
            [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]

    def said(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def tell(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    ready = [said(process) for process in many]
    for process in many:
        tell(process)
    answers = [said(process) for process in many]
    holder = int(path.read_text())
    for process in many:
        process.communicate("\n")

    assert ready == [""] * 8
    assert sorted(answers) == ["locked"] * 7 + ["ours"]
    assert many[answers.index("ours")].pid == holder
