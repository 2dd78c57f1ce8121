"""Dead letters on the command line: found by filters, shown, sent again, thrown away."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.cli.main import run
from celeriac.message import DeadLetter, LetterKind
from celeriac.ports import ConsumeSpec, Transport
from celeriac.queues import direct_queue
from celeriac.testing.conformance.fixtures import take
from celeriac.testing.conformance.messages import to_queue

PROGRAM = """
from celeriac import Celeriac
app = Celeriac("prog", broker="memory://{name}")
"""

Run = Callable[..., int]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Celeriac:
    """Return the app of a module in the working directory."""
    name = f"dlq_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(PROGRAM.format(name=name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    app = importlib.import_module(name).app
    assert isinstance(app, Celeriac)
    app.finalize()
    return app


@pytest.fixture
def celery(app: Celeriac, tmp_path: Path) -> Run:
    """Return a function that runs a command of that app."""
    name = f"dlq_{tmp_path.name.replace('-', '_')}"
    return lambda *arguments: run(["-A", name, *arguments])


async def _bury(
    transport: Transport, letters: Sequence[tuple[str, str, LetterKind]], queue_name: str = "celery"
) -> list[str]:
    queue = direct_queue(queue_name)
    consumer = await transport.consumer(ConsumeSpec(queues=(queue,), node="n@h"))
    ids = []
    for task, reason, kind in letters:
        message = to_queue(queue)
        message.envelope.headers["task"] = task
        ids.append(message.envelope.headers["id"])
        transport.producer().send([message], deadline=5)
        [held] = await take(consumer, 1)
        await consumer.settle([(held, DeadLetter(reason, kind))])
    await consumer.close()
    return ids


@pytest.fixture
def ids(app: Celeriac) -> list[str]:
    """Return the ids of three tasks that are dead letters of the queue celery."""
    letters: list[tuple[str, str, LetterKind]] = [
        ("prog.add", "it kills", "poison"),
        ("prog.add", "who is that?", "unregistered"),
        ("prog.mail", "\x1b[31mred\n", "lost"),
    ]
    return asyncio.run(_bury(app.transport, letters))


def test_letters_are_listed_newest_first_without_anything_a_terminal_obeys(
    celery: Run, ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert celery("dlq", "list") == 0

    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["letter", "queue", "task", "kind", "since", "attempt", "reason"]
    assert [id_ in line for id_, line in zip(reversed(ids), lines, strict=True)] == [True] * 3
    assert lines[0].rstrip().endswith(r"\x1b[31mred\n")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--name", "prog.add"], [1, 0]),
        (["--name", "prog.add", "--reason", "poison"], [0]),
        (["--reason", "poison", "--reason", "lost"], [2, 0]),
        (["-n", "1"], [2]),
        (["--since", "1h"], [2, 1, 0]),
        (["--older", "1h"], []),
        (["--since", "2999-01-01"], []),
        (["-Q", "other"], []),
        (["-Q", "other,celery"], [2, 1, 0]),
    ],
)
def test_filters_say_which_letters(
    celery: Run, ids: list[str], capsys: pytest.CaptureFixture[str], filters: list[str], found: list[int]
) -> None:
    assert celery("dlq", "list", "--json", *filters) == 0

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["id"] for line in lines] == [ids[number] for number in found]


def test_letters_are_looked_for_where_routes_and_tasks_send_to_as_well(
    app: Celeriac, celery: Run, ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    app.conf.task_routes = {
        "prog.far": {"queue": "far"},
        "prog.m*": "mails",
        "prog.near": {"queue": "celery"},
    }
    app.task(name="prog.slow", queue="slow")(len)
    for name in ("far", "mails", "slow"):
        asyncio.run(_bury(app.transport, [(f"prog.{name}", "it died", "lost")], name))

    assert celery("dlq", "list", "--json") == 0

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["queue"] for line in lines] == ["celery"] * 3 + ["far", "mails", "slow"]
    assert celery("dlq", "purge", "--reason", "lost", "-f") == 0
    assert capsys.readouterr().out == "4 dead letters purged.\n"


def test_the_old_name_of_the_list_stays(
    celery: Run, ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert celery("dead", "--json", "-n", "1") == 0

    line = json.loads(capsys.readouterr().out)
    assert (line["id"], line["kind"], line["node"], line["attempt"]) == (ids[2], "lost", "n@h", 1)


def test_a_letter_is_shown_with_its_message(
    celery: Run, ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert celery("dlq", "show", ids[0], "--json") == 0

    shown = json.loads(capsys.readouterr().out)
    assert (shown["task"], shown["reason"], shown["body"]) == ("prog.add", "it kills", "hello")
    assert shown["headers"]["id"] == ids[0]


def test_a_letter_that_is_retried_waits_in_its_queue(
    celery: Run, app: Celeriac, ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert celery("dlq", "retry", ids[0]) == 0

    assert "One dead letter sent again." in capsys.readouterr().out
    assert app.transport.size("celery") == 1
    assert len(app.transport.graveyard().find("celery")) == 2
    assert celery("dlq", "retry", ids[0]) == 1
    assert "No dead letters like that in celery." in capsys.readouterr().err


def test_all_letters_are_retried_only_by_saying_so(
    celery: Run, app: Celeriac, ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert celery("dlq", "retry") == 2
    assert "or --all" in capsys.readouterr().err

    assert celery("dlq", "retry", "--all") == 0

    assert "3 dead letters sent again." in capsys.readouterr().out
    assert app.transport.size("celery") == 3


def test_purging_asks_first(
    celery: Run,
    app: Celeriac,
    ids: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda prompt: "n")
    assert celery("dlq", "purge") == 1
    assert "Aborted" in capsys.readouterr().err
    assert len(app.transport.graveyard().find("celery")) == 3

    assert celery("dlq", "purge", "-f", "--reason", "lost") == 0

    assert "One dead letter purged." in capsys.readouterr().out
    assert len(app.transport.graveyard().find("celery")) == 2


def test_a_misspelt_name_gets_a_hint(celery: Run, ids: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert celery("dlq", "list", "--name", "prog.ad") == 0

    assert "Did you mean --name prog.add?" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list", "--reason", "poisn"], "poison"),
        (["list", "--since", "yesterday"], "an age, such as 90s"),
        (["retri", "--all"], "No such command"),
    ],
)
def test_what_makes_no_sense_is_refused(
    celery: Run, app: Celeriac, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert celery("dlq", *arguments) == 2

    assert said in capsys.readouterr().err
