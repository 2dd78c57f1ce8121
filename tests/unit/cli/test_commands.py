"""Commands are found by name, help is shown, and mistakes are answered."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from celeriac.cli.main import COMMANDS, SUMMARIES, run
from celeriac.version import VERSION

PROGRAM = """
from celeriac import Celeriac
app = Celeriac("prog", broker="memory://{name}")

@app.task
def add(x, y):
    return x + y
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module with an app, in the working directory."""
    name = f"prog_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(PROGRAM.format(name=name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"{VERSION}\n"


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"]])
def test_help_lists_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0

    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)


def test_help_has_a_line_for_every_command_of_ours() -> None:
    assert SUMMARIES.keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_a_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert "Usage:" in capsys.readouterr().out


def test_a_misspelt_command_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["wrker"]) == 2
    assert "Did you mean worker?" in capsys.readouterr().err


def test_a_misspelt_option_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["worker", "--concurency", "2"]) == 2
    assert "--concurrency" in capsys.readouterr().err


def test_an_app_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-A", "no_such_module", "purge", "-f"]) == 2

    shown = capsys.readouterr().err
    assert "Unable to load celery application.\nThe module no_such_module was not found." in shown


def test_a_call_waits_in_the_queue_until_it_is_purged(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["call", "-A", program, "prog.add", "-a", "[1, 2]"]) == 0
    assert len(capsys.readouterr().out.strip()) == 36

    assert run(["purge", "-A", program, "-f"]) == 0
    assert "Purged 1 message from 1 known task queue." in capsys.readouterr().out
    assert run(["purge", "-A", program, "-f", "-Q", "celery,other"]) == 0
    assert "No messages purged from 2 queues." in capsys.readouterr().out


def test_nothing_is_purged_before_somebody_agrees(
    program: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["call", "-A", program, "prog.add"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))

    assert run(["purge", "-A", program]) == 1

    assert "WARNING:This will remove all tasks from queue: celery." in capsys.readouterr().out
    assert run(["purge", "-A", program, "-f"]) == 0
    assert "Purged 1 message from 1 known task queue." in capsys.readouterr().out


def test_arguments_that_are_not_json_are_refused(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["call", "-A", program, "prog.add", "-a", "[1"]) == 2
    assert "is not JSON" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--eta", "--expires"])
def test_a_moment_that_is_none_is_refused(
    program: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["call", "-A", program, "prog.add", option, "soon"]) == 2
    assert f"Invalid value for '{option}': 'soon' is no" in capsys.readouterr().err
    assert run(["call", "-A", program, "prog.add", option, "2999-01-01T00:00:00+00:00"]) == 0


def test_options_may_be_variables_of_the_environment(
    program: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_APP", program)
    monkeypatch.setenv("CELERY_PURGE_QUEUES", "celery,other")

    assert run(["purge", "-f"]) == 0
    assert "No messages purged from 2 queues." in capsys.readouterr().out


def test_the_report_says_where_messages_go_and_hides_passwords(
    program: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://me:secret@host//")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "db+postgresql://me:secret@host/results")

    assert run(["-A", program, "report"]) == 0

    shown = capsys.readouterr().out
    assert f"celeriac:{VERSION}" in shown
    assert "settings -> transport:amqp://me:**@host//\n" in shown
    assert "results:db+postgresql://me:**@host/results\n" in shown
    assert "secret" not in shown


def test_a_report_comes_out_when_the_broker_is_not_usable(
    program: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "nosuch://host")

    assert run(["-A", program, "report"]) == 0
    assert "transport:unusable: broker_url 'nosuch://host'" in capsys.readouterr().out


@pytest.fixture
def broken_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that adds the command ``flora``, whose module cannot be imported."""
    metadata = tmp_path / "flora-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: flora\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[celery.commands]\nflora = flora_command:command\n")
    (tmp_path / "flora_command.py").write_text("from celeriac import something_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_plugin_that_cannot_be_imported_harms_no_other_command(
    broken_plugin: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--help"]) == 0

    shown = capsys.readouterr().out
    assert re.search(r"^  flora +\(cannot be loaded\)$", shown, re.MULTILINE)
    assert "\n  worker " in shown


def test_a_plugin_that_cannot_be_imported_says_why(
    broken_plugin: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["flora", "--port", "5555"]) == 1
    assert "The command flora of another package cannot be loaded: ImportError" in capsys.readouterr().err


def test_reaping_says_that_nobody_died(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-A", program, "queue", "reap"]) == 0

    assert "No dead worker holds anything" in capsys.readouterr().out
