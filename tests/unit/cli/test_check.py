"""Before a deployment: what is queued or scheduled and not in the code; and which queues there are."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from celeriac.cli.main import run

PROGRAM = """
from celeriac import Celeriac
from celeriac.queues import Binding, Exchange, Queue
app = Celeriac("prog", broker="memory://{name}", set_as_current=False)

@app.task(name="prog.add")
def add(x, y):
    return x + y
"""
QUEUES = """
from celeriac.queues import Exchange
app.conf.task_queues = [
    Queue(name="a"),
    Queue(name="many", bindings=(
        Binding(exchange=Exchange(name="news", type="topic"), routing_key="x.#"),
        Binding(exchange=Exchange(name="news", type="topic"), routing_key="y.#"),
    )),
]
"""
Show = pytest.CaptureFixture[str]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module with an app, in the working directory."""
    name = f"check_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(PROGRAM.format(name=name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_all_is_well_when_the_code_knows_every_task(program: str, capsys: Show) -> None:
    importlib.import_module(program).add.delay(1, 2)

    assert run(["-A", program, "check"]) == 0

    assert capsys.readouterr().out == "Every task in celery and in the schedule is in the code.\n"


def test_tasks_that_are_not_in_the_code_are_told_with_their_queue(program: str, capsys: Show) -> None:
    app = importlib.import_module(program).app
    app.send_task("prog.ad")
    app.send_task("prog.ad")
    app.send_task("\x1b[31mred")
    app.conf.beat_schedule = {"nightly": {"task": "prog.sweep", "schedule": 60}}

    assert run(["-A", program, "check"]) == 1

    assert capsys.readouterr().out.splitlines() == [
        "One message in queue celery for \\x1b[31mred, which is not in the code.",
        "2 messages in queue celery for prog.ad, which is not in the code. Did you mean prog.add?",
        "Entry nightly of beat_schedule sends prog.sweep, which is not in the code.",
    ]
    assert app.transport.ready("celery") == 3


def test_the_bindings_are_listed_in_columns(program: str, tmp_path: Path, capsys: Show) -> None:
    with (tmp_path / f"{program}.py").open("a") as file:
        file.write(QUEUES)

    assert run(["-A", program, "list", "bindings"]) == 0

    head, dashes, *rows = capsys.readouterr().out.splitlines()
    assert head == f"{'Queue':<28} {'Exchange':<28} Routing Key"
    assert dashes == f"{'-' * 16:<28} {'-' * 16:<28} {'-' * 16}"
    assert [row.split() for row in rows[1:]] == [["many", "news", "x.#"], ["many", "news", "y.#"]]
    assert rows[0].split()[0] == "a"
