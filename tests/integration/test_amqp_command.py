"""`celery amqp` at a prompt and command by command."""

from __future__ import annotations

import io
import uuid

import pytest

from celeriac.app import Celeriac
from celeriac.cli.main import run

Show = pytest.CaptureFixture[str]


@pytest.fixture
def app(rabbitmq_url: str) -> Celeriac:
    return Celeriac("proj", broker=rabbitmq_url, set_as_current=False)


def test_a_message_is_sent_got_and_acknowledged_at_the_prompt(
    app: Celeriac, capsys: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"amqp-{uuid.uuid4().hex[:8]}"
    script = [
        f"exchange.declare {name} direct",
        f"queue.declare {name}",
        f"queue.bind {name} {name} key",
        f"basic.publish 'Hello, you' {name} key",
        f"basic.publish lost {name} nobody true",
        "queue.declare nobody-has-it true",
        f"basic.get {name}",
        "basic.ack 1",
        f"basic.get {name}",
        f"basic.publish again '' {name}",
        "basic.publish nowhere no-such-exchange key",
        f"queue.purge {name}",
        "queue.purgee x",
        "basic.ack none",
        "'unclosed",
        f"queue.delete {name}",
        f"exchange.delete {name}",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(script) + "\n"))

    assert run(["amqp", "repl"], app=app) == 0

    shown = capsys.readouterr()
    said = [line.split("> ")[-1] for line in shown.out.splitlines()]
    assert said[1:5] == ["connected.", "ok.", f"ok. queue:{name} messages:0 consumers:0.", "ok."]
    assert "'body': 'Hello, you'" in said[6]
    assert said[7:] == [
        *("ok.", "empty", "ok.", "ok. 1 messages deleted.", "ok. 0 messages deleted.", "ok.", ""),
    ]
    errors = shown.err.splitlines()
    for number, part in enumerate(
        (
            "No queue takes it",
            "NOT_FOUND",
            "no exchange",
            "Did you mean queue.purge?",
            "is not a valid",
            "quotation",
        )
    ):
        assert part in errors[number]


def test_one_command_is_done_alone(app: Celeriac, capsys: Show) -> None:
    name = f"amqp-{uuid.uuid4().hex[:8]}"

    assert run(["-q", "amqp", "queue.declare", name, "false", "true"], app=app) == 0
    assert run(["-q", "amqp", "basic.publish", "x", "", name], app=app) == 0
    assert run(["-q", "amqp", "queue.declare", name, "true"], app=app) == 0
    assert run(["-q", "amqp", "queue.delete", name], app=app) == 0
    assert run(["-q", "amqp", "queue.declare", name, "true"], app=app) == 1

    assert capsys.readouterr().out.splitlines() == [
        f"ok. queue:{name} messages:0 consumers:0.",
        "ok.",
        f"ok. queue:{name} messages:1 consumers:0.",
        "ok. 1 messages deleted.",
    ]


def test_another_broker_is_told_what_there_is_instead(capsys: Show) -> None:
    app = Celeriac("proj", broker="memory://amqp-command", set_as_current=False)

    assert run(["amqp", "queue.purge", "celery"], app=app) == 2
    assert "queue list, peek, move and purge" in capsys.readouterr().err
