"""``celery worker --reload``: begins anew when its code has changed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from celeriac import Celeriac
from celeriac.cli import reloading
from celeriac.cli.main import run
from celeriac.cli.reloading import Reloader

TIMEOUT = 60.0
PROGRAM = """
import words
from celeriac import Celeriac

app = Celeriac("prog", broker="sqlite:///{file}", backend="sqlite:///{file}")

@app.task(name="say")
def say():
    return words.WORD
"""
WAITS = """
import os, pathlib, time
from celeriac import Celeriac

app = Celeriac("prog", broker="sqlite:///{file}", backend="sqlite:///{file}")

@app.task(name="wait")
def wait():
    pathlib.Path("mine").write_text(str(os.getpid()))
    pathlib.Path("mine").rename("begun")
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    return "done"
"""
# A worker that says which word it has loaded, and that it ends.
STAND_IN = """
import json, os, signal, sys
word = open("words.py").read().strip()
exec(word)
def end(*_):
    print("end", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
note = os.environ["CELERIAC_RELOAD_NOTE"]
with open(note + "x", "w") as file:
    json.dump([os.path.abspath("words.py")], file)
os.rename(note + "x", note)
print(word, flush=True)
if word == "leave = 1":
    sys.exit(3)
while True:
    signal.pause()
"""


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_worker_begins_anew_when_a_file_that_it_has_loaded_changes(tmp_path: Path) -> None:
    # Given a worker that has loaded a module
    file, words = tmp_path / "queue.db", tmp_path / "words.py"
    (tmp_path / "prog.py").write_text(PROGRAM.format(file=file))
    words.write_text("WORD = 'first'\n")
    app = Celeriac("prog", broker=f"sqlite:///{file}", backend=f"sqlite:///{file}")
    command = [sys.executable, "-m", "celeriac", "-A", "prog", "worker", "--reload", "-P", "solo"]
    python_path = os.pathsep.join([*filter(None, sys.path)])
    worker = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": python_path})
    try:
        assert app.send_task("say").get(timeout=TIMEOUT) == "first"

        # When the module changes
        words.write_text("WORD = 'the second'\n")

        # Then tasks are soon run by what stands there now, and none is lost
        def say() -> str:
            return str(app.send_task("say").get(timeout=TIMEOUT))

        until(lambda: say() == "the second")
    finally:
        worker.terminate()
        code = worker.wait(TIMEOUT)
        app.close()
    assert code == 0


def test_a_worker_whose_watcher_is_killed_ends_in_good_order(tmp_path: Path) -> None:
    # Given a worker that runs a task
    file = tmp_path / "queue.db"
    (tmp_path / "prog.py").write_text(WAITS.format(file=file))
    app = Celeriac("prog", broker=f"sqlite:///{file}", backend=f"sqlite:///{file}")
    command = [sys.executable, "-m", "celeriac", "-A", "prog", "worker", "--reload", "-P", "solo"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path)])}
    watcher = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE)
    try:
        call = app.send_task("wait")
        until((tmp_path / "begun").exists)

        # When the process that watches it is killed
        watcher.kill()
        (tmp_path / "go").touch()

        # Then the task ends, and so does the worker: nobody has its output open any more
        assert call.get(timeout=TIMEOUT) == "done"
        assert b"Warm shutdown" in watcher.communicate(timeout=TIMEOUT)[0]
    finally:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(int((tmp_path / "begun").read_text()), signal.SIGKILL)
        watcher.kill()
        watcher.communicate()
        app.close()


class Stage:
    """A reloader with a stand-in for its worker, and what a person does meanwhile."""

    def __init__(self, folder: Path, words: str) -> None:
        self.words = folder / "words.py"
        self.words.write_text(words)
        self.said: list[str] = []
        (folder / "worker.py").write_text(STAND_IN)
        self._out = folder / "out.txt"
        self._folder = folder
        (folder / "notes").mkdir()

    def heard(self) -> list[str]:
        """Return what the workers have said."""
        return self._out.read_text().splitlines() if self._out.exists() else []

    def run(self, person: Callable[[], None]) -> int:
        """Run it here, and the person in a thread; return the exit code when the person has ended it."""
        failures: list[BaseException] = []

        def act() -> None:
            try:
                person()
            except BaseException as exc:
                failures.append(exc)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        shell = f"exec {sys.executable} worker.py >> out.txt 2>> errors.txt"
        reloader = Reloader(
            ["sh", "-c", shell],
            str(self._folder),
            self._folder / "notes",
            watchfiles.watch,
            self.said.append,
        )
        thread = threading.Thread(target=act)
        before = signal.signal(signal.SIGTERM, lambda *_: None)  # it may come when the reloader has ended
        try:
            thread.start()
            code = reloader.run()
            thread.join()
        finally:
            signal.signal(signal.SIGTERM, before)
        if failures:
            raise failures[0]
        return code


def test_what_cannot_be_compiled_is_told_and_the_worker_goes_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "a = 1")

    def person() -> None:
        until(lambda: stage.heard() == ["a = 1"])
        stage.words.write_text("a = = 2")
        until(lambda: bool(stage.said))
        assert stage.heard() == ["a = 1"]
        (tmp_path / "others.py").write_text("b = 1")  # nobody has loaded it
        stage.words.write_text("a = 3")
        until(lambda: stage.heard() == ["a = 1", "end", "a = 3"])

    assert stage.run(person) == 7

    assert "words.py has changed and cannot be loaded; nothing is begun anew: invalid syntax" in stage.said[0]
    assert stage.said[1:] == [f"{stage.words} changed: the worker ends in good order and begins anew."]
    assert stage.heard() == ["a = 1", "end", "a = 3", "end"]


@pytest.mark.parametrize(("words", "code"), [("leave = 1", 3), ("this is no Python", 1)])
def test_a_worker_that_has_ended_begins_again_at_the_next_change(
    tmp_path: Path, words: str, code: int
) -> None:
    stage = Stage(tmp_path, words)

    def person() -> None:
        until(lambda: bool(stage.said))
        stage.words.write_text("a = 2")
        until(lambda: stage.heard()[-1:] == ["a = 2"])

    assert stage.run(person) == 7

    assert stage.said[0].startswith(f"The worker has ended with code {code}; it begins again when a Python")


@pytest.fixture
def without_watchfiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)


@pytest.mark.usefixtures("without_watchfiles")
def test_without_the_package_it_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-A", "no.such.module", "worker", "--reload", "-l", "info"]) == 1

    assert "pip install 'celeriac[reload]'" in capsys.readouterr().err


def test_a_worker_in_the_background_is_not_reloaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app: Any = Celeriac("prog", broker="memory://")
    assert run(["worker", "--reload", "--detach"], app=app) == 2

    assert "leave out --detach" in capsys.readouterr().err


def test_only_files_of_the_program_are_watched() -> None:
    files = reloading.loaded_files()

    assert __file__ in files
    assert os.__file__ not in files
    assert pytest.__file__ not in files
