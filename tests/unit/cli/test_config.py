"""Settings on the command line: what counts, and who said so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from celeriac.cli.main import run

PROGRAM = """
from celeriac import Celeriac
app = Celeriac("prog", broker="memory://", task_default_queue="code")
app.config_from_object({"worker_concurrency": 3, "redis_password": "pssst", "task_default_queue": "dict"})
app.add_defaults({"task_acks_late": True, "worker_concurrency": 7})

spaced = Celeriac("spaced", broker="memory://code", task_acks_late=True)
spaced.config_from_object({"CELERY_BROKER_URL": "memory://project", "DEBUG": True}, namespace="CELERY")
"""
Show = pytest.CaptureFixture[str]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module with an app, in the working directory."""
    name = f"config_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def _shown(program: str, capsys: Show, *arguments: str) -> dict[str, tuple[Any, str]]:  # Any: JSON
    assert run(["-A", program, "config", "show", "--json", *arguments]) == 0
    facts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {fact["setting"]: (fact["value"], fact["from"]) for fact in facts}


def test_every_value_is_shown_with_the_place_that_won(
    program: str, capsys: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://:pssst@host/0")

    assert _shown(program, capsys) == {
        "broker_url": ("memory://", "code"),
        "redis_password": ("********", "configuration"),
        "result_backend": ("redis://:**@host/0", "environment (CELERY_RESULT_BACKEND)"),
        "task_acks_late": (True, "added defaults"),
        "task_default_queue": ("code", "code"),
        "worker_concurrency": (7, "added defaults"),
    }


def test_a_setting_that_nobody_has_set_is_shown_when_asked_for(program: str, capsys: Show) -> None:
    assert _shown(program, capsys, "task_acks_on_failure_or_timeout") == {
        "task_acks_on_failure_or_timeout": (True, "default")
    }
    assert "task_track_started" in _shown(program, capsys, "--all")


def test_a_misspelt_setting_gets_a_hint(program: str, capsys: Show) -> None:
    assert run(["-A", program, "config", "show", "task_ack_late"]) == 2

    assert "Did you mean task_acks_late?" in capsys.readouterr().err


def test_a_value_with_the_prefix_of_a_project_is_told_from_one_of_the_code(
    program: str, capsys: Show
) -> None:
    assert _shown(f"{program}:spaced", capsys) == {
        "broker_url": ("memory://project", "configuration (CELERY_BROKER_URL)"),
        "task_acks_late": (True, "code"),
    }


def test_people_get_a_table(program: str, capsys: Show) -> None:
    assert run(["-A", program, "config", "show", "task_acks_late"]) == 0

    assert [line.rstrip().split(maxsplit=2) for line in capsys.readouterr().out.splitlines()] == [
        ["setting", "value", "from"],
        ["task_acks_late", "True", "added defaults"],
    ]
