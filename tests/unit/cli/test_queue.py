"""Queues on the command line: counted, looked into, moved and purged, without losing a message."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.cli.main import run

PROGRAM = """
from celeriac import Celeriac
app = Celeriac("prog", broker="memory://{name}")
"""

Run = Callable[..., int]
Show = pytest.CaptureFixture[str]


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module with an app, in the working directory."""
    name = f"queue_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(PROGRAM.format(name=name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.fixture
def app(name: str) -> Celeriac:
    """Return the app of that module, with three calls of two tasks in the queue celery."""
    app = importlib.import_module(name).app
    assert isinstance(app, Celeriac)
    for task, number in (("prog.add", 1), ("prog.mail", 2), ("prog.add", 3)):
        app.send_task(task, args=(number,))
    return app


@pytest.fixture
def celery(app: Celeriac, name: str) -> Run:
    """Return a function that runs a command of that app."""
    return lambda *arguments: run(["-A", name, *arguments])


def _peeked(celery: Run, capsys: Show, queue: str) -> list[tuple[str, str, int]]:
    capsys.readouterr()
    assert celery("queue", "peek", queue, "--json") == 0
    facts = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    return [(fact["task"], fact["args"], fact["attempt"]) for fact in facts]


def test_the_queues_are_listed_with_what_waits_in_them(app: Celeriac, celery: Run, capsys: Show) -> None:
    app.send_task("prog.later", countdown=3600)

    assert celery("queue", "list", "--json", "-Q", "celery,other") == 0

    facts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert 0 <= facts[0].pop("oldest_seconds") < 60
    assert facts[1].pop("oldest_seconds") is None
    assert facts == [
        {"queue": "celery", "waiting": 4, "ready": 3, "scheduled": 1, "paused": False},
        {"queue": "other", "waiting": 0, "ready": 0, "scheduled": 0, "paused": False},
    ]
    assert celery("queue", "list") == 0
    titles, line = capsys.readouterr().out.splitlines()
    assert titles.split() == ["queue", "waiting", "ready", "scheduled", "oldest", "state"]
    *counts, oldest = line.split()
    assert counts == ["celery", "4", "3", "1"]
    assert oldest.endswith("s")


def test_looking_into_a_queue_changes_nothing(app: Celeriac, celery: Run, capsys: Show) -> None:
    first = _peeked(celery, capsys, "celery")

    assert [task for task, *_ in first] == ["prog.add", "prog.mail", "prog.add"]
    assert _peeked(celery, capsys, "celery") == first
    assert app.transport.ready("celery") == 3


def test_an_empty_queue_has_nothing_to_show(celery: Run, capsys: Show) -> None:
    assert celery("queue", "peek", "other") == 0

    assert capsys.readouterr().out == "No message is ready in other.\n"


def test_chosen_tasks_are_moved_and_the_others_keep_their_place(celery: Run, capsys: Show) -> None:
    assert celery("queue", "move", "celery", "other", "--name", "prog.add", "-f") == 0

    assert capsys.readouterr().out == "2 messages moved from celery to other.\n"
    assert [args for _, args, _ in _peeked(celery, capsys, "other")] == ["(1,)", "(3,)"]
    assert _peeked(celery, capsys, "celery") == [("prog.mail", "(2,)", 1)]


def test_no_more_are_moved_than_were_asked_for(app: Celeriac, celery: Run) -> None:
    assert celery("queue", "move", "celery", "other", "-n", "2", "-f") == 0

    assert (app.transport.ready("celery"), app.transport.ready("other")) == (1, 2)


def test_a_queue_is_not_moved_to_itself(celery: Run, capsys: Show) -> None:
    assert celery("queue", "move", "celery", "celery", "-f") == 2

    assert "celery and celery are one queue." in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("purge", "celery"), ("move", "celery", "other")])
def test_nothing_goes_before_somebody_agrees(
    arguments: tuple[str, ...], app: Celeriac, celery: Run, capsys: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))

    assert celery("queue", *arguments) == 1

    assert "Aborted." in capsys.readouterr().err
    assert app.transport.ready("celery") == 3


def test_a_queue_is_purged(app: Celeriac, celery: Run, capsys: Show) -> None:
    assert celery("queue", "purge", "celery", "-f") == 0

    assert capsys.readouterr().out == "3 messages purged from celery.\n"
    assert app.transport.ready("celery") == 0


def test_a_queue_is_paused_and_resumed(app: Celeriac, celery: Run, capsys: Show) -> None:
    assert celery("queue", "pause", "celery", "other", "-t", "0.1") == 0
    told = capsys.readouterr().out
    assert celery("queue", "list", "--json", "-Q", "celery,third") == 0
    listed = [json.loads(line)["paused"] for line in capsys.readouterr().out.splitlines()]

    assert "celery is paused" in told
    assert "No worker has answered" in told
    assert listed == [True, False]
    assert app.control.paused_queues(["celery", "other"]) == ["celery", "other"]
    assert celery("queue", "resume", "celery", "third", "-t", "0.1") == 0
    assert "third is not paused." in capsys.readouterr().out
    assert app.control.paused_queues(["celery", "other"]) == ["other"]
