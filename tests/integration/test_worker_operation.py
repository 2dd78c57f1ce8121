"""``celery worker`` as an operator meets it: options, files, signals, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from processes import PATIENCE_SECONDS, Program, celery, run, user_environment
from worker_program import until

PROJECT = """
import time
from pathlib import Path
from celery import Celery
from celery.signals import worker_process_shutdown, worker_shutting_down

HERE = Path(__file__).parent
app = Celery("proj", broker=f"sqlite:///{HERE}/q.db", backend=f"sqlite:///{HERE}/q.db")

@app.task
def add(x, y):
    return x + y

@app.task(acks_late=True)
def hold():
    (HERE / "begun").touch()
    while not (HERE / "go").exists():
        time.sleep(0.01)
    (HERE / "done").touch()

@worker_shutting_down.connect
def tell(sender=None, sig=None, how=None, exitcode=None, **kwargs):
    (HERE / "told").write_text(f"{sender} {sig} {how} {exitcode}")

@worker_process_shutdown.connect
def linger(**kwargs):
    while (HERE / "linger").exists():
        (HERE / "lingers").touch()
        time.sleep(0.01)
"""

Start = Callable[..., Program]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "proj.py").write_text(PROJECT)
    return tmp_path


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    programs: list[Program] = []

    def start_worker(*options: str, ready: bool = True) -> Program:
        command = celery("-A", "proj", "worker", "-l", "info", "-n", "w1@here", *options)
        program = Program(command, cwd=home, env=user_environment(home))
        programs.append(program)
        if ready:
            program.wait_for(r"w1@here ready\.")
        return program

    yield start_worker
    for program in programs:
        program.end()


def send(home: Path, call: str) -> str:
    """Have a client evaluate an expression with the project's names and return what it prints."""
    program = f"from proj import *; print({call})"
    return run(["python", "-c", program], cwd=home, env=user_environment(home)).strip()


class TestOptions:
    """What the command line says, and what is wrong with it."""

    def test_a_concurrency_of_0_is_one_per_processor(self, start: Start) -> None:
        worker = start("-c", "0")

        worker.wait_for(rf"concurrency: {len(os.sched_getaffinity(0))} \(prefork\)")
        assert worker.stop() == 0

    def test_a_pool_that_there_is_not_is_told(self, start: Start) -> None:
        worker = start("-P", "thread", ready=False)

        assert worker.finish() == 2
        assert "There is no pool 'thread'" in worker.output
        assert "did you mean 'threads'?" in worker.output

    def test_what_is_wrong_with_a_module_is_shown_as_it_is(self, home: Path, start: Start) -> None:
        (home / "broken.py").write_text("1 / 0\n")

        worker = start("-I", "broken", ready=False)

        assert worker.finish() == 1
        assert (
            "ZeroDivisionError: division by zero" in worker.output.splitlines()
        )  # no log line about a print

    @pytest.mark.parametrize("option", ["--pidfile", "--logfile"])
    def test_a_file_that_cannot_be_written_is_told_in_a_line(self, start: Start, option: str) -> None:
        worker = start(f"{option}=/no/such/folder/x", ready=False)

        assert worker.finish() == 73
        [line] = worker.output.splitlines()
        assert "/no/such/folder/x" in line
        assert "No such file or directory" in line


class TestFiles:
    """Log files and pid files."""

    def test_a_logfile_for_each_process(self, home: Path, start: Start) -> None:
        worker = start("-c", "2", "--logfile=%n%I.log", ready=False)
        until(lambda: (home / "w1.log").exists() and "ready." in (home / "w1.log").read_text())

        task = send(home, "add.delay(1, 2).id")
        children = [home / "w1-1.log", home / "w1-2.log"]
        until(lambda: any("succeeded" in path.read_text() for path in children))

        assert worker.stop() == 0
        assert (home / "told").read_text() == "w1@here SIGTERM Warm 0"
        assert f"Task proj.add[{task}] received" in (home / "w1.log").read_text()
        assert "succeeded" not in (home / "w1.log").read_text()

    def test_a_second_worker_is_kept_away(self, home: Path, start: Start) -> None:
        worker = start("--pidfile=w.pid")

        second = start("--pidfile=w.pid", ready=False)

        assert second.finish() == 73
        assert f"Seems we're already running? (pid: {worker.pid})" in second.output
        assert (home / "w.pid").read_text() == f"{worker.pid}\n"
        assert worker.stop() == 0
        assert not (home / "w.pid").exists()

    def test_a_new_beginning_keeps_its_pidfile(self, home: Path, start: Start) -> None:
        worker = start("--pidfile=w.pid")

        worker.signal(signal.SIGHUP)
        worker.wait_for(r"w1@here ready\.", count=2)

        assert "Stale" not in worker.output
        assert (home / "w.pid").read_text() == f"{worker.pid}\n"
        assert worker.stop() == 0


class TestSignals:
    """What is asked by signals is done, whatever else is the matter."""

    def test_an_end_that_is_asked_for_after_a_new_beginning(self, home: Path, start: Start) -> None:
        worker = start("-c", "1")
        send(home, "hold.delay()")
        until((home / "begun").exists)

        worker.signal(signal.SIGHUP)
        worker.wait_for("Restarting celery worker")
        worker.signal(signal.SIGTERM)
        worker.wait_for("Warm shutdown")
        (home / "go").touch()

        assert worker.finish() == 0
        assert worker.output.count("w1@here ready.") == 1

    def test_a_hangup_does_not_undo_an_end(self, home: Path, start: Start) -> None:
        worker = start("-c", "1")
        send(home, "hold.delay()")
        until((home / "begun").exists)

        worker.signal(signal.SIGTERM)
        worker.wait_for("Warm shutdown")
        worker.signal(signal.SIGHUP)
        (home / "go").touch()

        assert worker.finish() == 0
        assert worker.output.count("w1@here ready.") == 1

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGINT])
    def test_a_worker_obeys_whose_output_nobody_reads_any_more(self, home: Path, number: int) -> None:
        worker = subprocess.Popen(
            celery("-A", "proj", "worker", "-l", "info", "-n", "w1@here"),
            cwd=home,
            env=user_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert worker.stdout is not None
        while "ready." not in worker.stdout.readline():
            assert worker.poll() is None
        worker.stdout.close()

        worker.send_signal(number)

        assert worker.wait(PATIENCE_SECONDS) == (1 if number == signal.SIGINT else 0)

    def test_a_warm_stop_that_hangs_in_a_hook_can_be_hurried(self, home: Path, start: Start) -> None:
        worker = start("-c", "1")
        (home / "linger").touch()
        family = psutil.Process(worker.pid).children(recursive=True)

        worker.signal(signal.SIGTERM)
        until((home / "lingers").exists)
        worker.signal(signal.SIGQUIT)

        assert worker.finish() == 0
        assert psutil.wait_procs(family, timeout=PATIENCE_SECONDS)[1] == []

    @pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
    def test_a_cold_stop_waits_for_no_task(self, home: Path, start: Start, pool: str) -> None:
        worker = start("-c", "1", "-P", pool)
        send(home, "hold.delay()")
        until((home / "begun").exists)

        worker.signal(signal.SIGQUIT)

        assert worker.finish() == 0
        (home / "go").touch()
        assert not (home / "done").exists()
        start("-c", "1")
        until((home / "done").exists)  # it has gone back
