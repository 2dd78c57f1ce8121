"""Options that a program adds to commands."""

from __future__ import annotations

from typing import Any

import click
import pytest

from celeriac import Celeriac
from celeriac.beat import Scheduler
from celeriac.cli.main import run
from celeriac.events.receiver import EventReceiver

Show = pytest.CaptureFixture[str]


@pytest.fixture
def app() -> Celeriac:
    app = Celeriac("prog", broker="memory://added")
    app.user_options["preload"].add(click.Option(["-Z", "--template"], default="plain", help="Of mine."))
    return app


@pytest.fixture
def told(app: Celeriac) -> list[tuple[Any, Any, Any]]:
    """Return what is told of options that belong to every command."""
    told: list[tuple[Any, Any, Any]] = []

    def tell(sender: Any = None, app: Any = None, options: Any = None, **_: Any) -> None:
        told.append((sender, app, options))

    app.hooks.user_preload_options.connect(tell, weak=False)
    return told


@pytest.mark.parametrize("name", ["call", "inspect", "purge", "queue", "report", "worker"])
def test_every_command_has_the_options_for_all(app: Celeriac, name: str, capsys: Show) -> None:
    assert run([name, "--help"], app=app) == 0

    assert "-Z, --template TEXT" in capsys.readouterr().out


def test_what_is_given_for_all_is_told_before_the_command_begins(
    app: Celeriac, told: list[tuple[Any, Any, Any]], capsys: Show
) -> None:
    assert run(["purge", "-f", "-Z", "mine"], app=app) == 0
    assert run(["queue", "list"], app=app) == 0

    assert [(sender.__name__, of is app, options) for sender, of, options in told] == [
        ("command", True, {"template": "mine"}),
        ("command", True, {"template": "plain"}),
    ]


def test_beat_takes_options_of_its_own(app: Celeriac, told: list[tuple[Any, Any, Any]], capsys: Show) -> None:
    class Ends(Scheduler):
        def setup_schedule(self) -> None:
            raise click.ClickException("that is enough")

    app.conf.beat_scheduler = Ends
    app.user_options["beat"].add(click.Option(["--mine"], help="Of beat."))

    assert run(["beat", "--mine", "1", "-Z", "2"], app=app) == 1

    assert capsys.readouterr().err == "Error: that is enough\n"
    assert [options for *_, options in told] == [{"template": "2"}]


def test_events_takes_options_of_its_own(
    app: Celeriac, monkeypatch: pytest.MonkeyPatch, told: list[tuple[Any, Any, Any]]
) -> None:
    def end(*_: Any, **__: Any) -> None:
        raise SystemExit(0)

    monkeypatch.setattr(EventReceiver, "capture", end)
    app.user_options["events"].add(click.Option(["--mine"], help="Of events."))

    assert run(["events", "--dump", "--mine", "1"], app=app) == 0
    assert run(["purge", "-f", "--mine", "1"], app=app) == 2

    assert [options for *_, options in told] == [{"template": "plain"}]


def test_commands_do_without_an_app_that_adds_nothing(capsys: Show) -> None:
    assert run(["-A", "no.such.module", "logtool", "--help"]) == 0
    assert run(["-A", "no.such.module", "worker", "--help"]) == 2
