"""`inspect`, `control` and `status`: what they print, and how they end."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from celeriac.app import Celeriac
from celeriac.cli.main import run
from celeriac.cli.remote import arguments_of, described
from celeriac.control.panel import Panel
from celeriac.testing.worker import start_worker
from worker_program import until

NODE = "w1@here"


@pytest.fixture
def app() -> Iterator[Celeriac]:
    app = Celeriac("proj", broker=f"memory://{uuid.uuid4().hex}", backend="disabled", set_as_current=False)
    yield app
    app.close()


def test_answers_are_shown_by_node(app: Celeriac, capsys: pytest.CaptureFixture[str]) -> None:
    with start_worker(app, pool="threads", hostname=NODE):
        assert run(["-C", "inspect", "ping"], app=app) == 0
        assert run(["-C", "inspect", "active"], app=app) == 0
        assert run(["-C", "control", "rate_limit", "nobody", "1/s"], app=app) == 0
        assert run(["-C", "status"], app=app) == 0

    assert capsys.readouterr().out == (
        f"->  {NODE}: OK\n        pong\n\n1 node online.\n"
        f"->  {NODE}: OK\n    - empty -\n\n1 node online.\n"
        f"->  {NODE}: ERROR\n        unknown task\n"
        f"->  {NODE}: OK\n\n1 node online.\n"
    )


def test_json_is_a_dict_of_answers_or_a_list_of_them(
    app: Celeriac, capsys: pytest.CaptureFixture[str]
) -> None:
    with start_worker(app, pool="threads", hostname=NODE):
        assert run(["inspect", "--json", "ping", "-d", NODE], app=app) == 0
        assert run(["control", "-j", "revoke", "a"], app=app) == 0

    asked, told = capsys.readouterr().out.splitlines()
    assert json.loads(asked) == {NODE: {"ok": "pong"}}
    assert json.loads(told) == [{NODE: {"ok": "tasks {'a'} flagged as revoked"}}]


@pytest.mark.parametrize("words", [["inspect", "ping"], ["status"], ["control", "pool_grow"]])
def test_when_nobody_answers_the_command_says_so(
    app: Celeriac, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "-t", "0.1", "-d", "nobody@here"], app=app) == 69
    assert "No nodes replied within time constraint" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["inspect", "ping"], ["status"], ["control", "shutdown"]])
def test_a_misspelt_node_gets_a_hint(
    app: Celeriac, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with start_worker(app, pool="threads", hostname=NODE) as worker:
        assert run([*words, "-t", "0.1", "-d", "w1@hree"], app=app) == 69
        assert worker.node is not None
        assert worker.node.shutdown.how is None

    shown = capsys.readouterr().err
    assert f"No nodes replied within time constraint. There is no w1@hree; did you mean {NODE}?" in shown


def test_a_worker_that_is_told_to_stop_does_so(app: Celeriac) -> None:
    with start_worker(app, pool="threads", hostname=NODE) as worker:
        assert run(["control", "shutdown", "-d", NODE], app=app) == 0
        node = worker.node
        assert node is not None
        until(lambda: node.shutdown.how == "warm")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["inspect", "pings"],
            "Command pings not recognized. Did you mean ping? Available inspect commands: ",
        ),
        (["control", "ping"], "ping is a command of `celery inspect`."),
        (["inspect"], "Missing argument 'ACTION'"),
        (["control", "pool_grow", "many"], "pool_grow: n cannot be 'many'"),
        (["control", "pool_grow", "1", "2"], "pool_grow takes no argument '2'"),
    ],
)
def test_what_is_no_command_is_a_mistake(
    app: Celeriac, words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words, app=app) == 2
    assert text in " ".join(capsys.readouterr().err.split())


def test_a_broker_that_is_away_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    app = Celeriac("proj", broker="sqlite:////proc/nowhere/q.db", backend="disabled", set_as_current=False)

    assert run(["inspect", "ping"], app=app) == 69
    assert "Could not connect to the message broker" in capsys.readouterr().err
    app.close()


def test_all_commands_are_listed(app: Celeriac, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "--list"], app=app) == 0
    assert run(["control", "--list"], app=app) == 0

    listed = capsys.readouterr().out
    assert {command.name for command in app.panel if command.visible} <= set(listed.split())
    assert "hello" not in listed.split()


def test_words_become_the_arguments_of_a_command() -> None:
    panel = Panel()

    def arguments(name: str, *words: str) -> object:
        command = panel.find(name)
        assert command is not None
        return arguments_of(command, words)

    assert arguments("terminate", "KILL", "a", "b") == {"signal": "KILL", "task_id": ["a", "b"]}
    assert arguments("time_limit", "t", "1.5") == {"task_name": "t", "soft": 1.5}
    assert arguments("dump_conf", "yes") == {"with_defaults": True}


def test_how_answers_look() -> None:
    assert described({"ok": "fine"}) == ("OK", "        fine")
    assert described({"error": "bad"}) == ("ERROR", "        bad")
    assert described([]) == ("OK", "    - empty -")
    assert described(["a", {"b": 1}]) == ("OK", "    * a\n    * {'b': 1}")
    assert described({"clock": 3}) == ("OK", '    {\n        "clock": 3\n    }')
    assert described(None) == ("OK", "    None")
