"""Periodic tasks on the command line: listed, changed, and how the schedulers are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.beat import PersistentScheduler
from celeriac.cli.main import run
from celeriac.schedules import crontab


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celeriac]:
    """Yield an app whose broker keeps its timetable."""
    with Celeriac("prog", broker=f"sqlite:///{tmp_path}/broker.db", result_backend="disabled://") as app:
        app.conf.beat_schedule = {"nightly": {"task": "prog.clean", "schedule": crontab(0, 3)}}
        yield app


@pytest.fixture
def scheduler(app: Celeriac) -> Iterator[PersistentScheduler]:
    """Yield a scheduler that leads and looks whenever it is asked to."""
    scheduler = PersistentScheduler(app)
    scheduler.look_seconds = 0
    scheduler.tick()
    yield scheduler
    scheduler.close()


def tell(app: Celeriac, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """Run a command and return what it says."""
    assert run(list(arguments), app=app) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_a_task_is_added_changed_paused_and_removed(
    app: Celeriac, scheduler: PersistentScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed() -> dict[str, Any]:
        scheduler.tick()
        lines = tell(app, capsys, "schedule", "list", "--json").splitlines()
        return {one["name"]: one for one in map(json.loads, lines)}

    assert "report is added." in tell(
        app, capsys, "schedule", "add", "report", "-t", "prog.report", "--crontab", "*/5 8-18 * * mon-fri",
        "--tz", "Europe/Berlin", "-a", "[1]", "-k", '{"to": "x"}', "-Q", "slow", "--missed", "all",
    )  # fmt: skip
    found = listed()
    assert [found[name]["origin"] for name in ("nightly", "report")] == ["code", "added"]
    assert found["report"]["schedule"] == "<crontab: */5 8-18 * * mon-fri (m/h/dM/MY/d)>"
    assert found["report"]["missed"] == "all"
    entry = scheduler.schedule["report"]
    assert (entry.args, entry.kwargs, entry.options) == ([1], {"to": "x"}, {"queue": "slow"})

    tell(app, capsys, "schedule", "update", "nightly", "--every", "3600")
    tell(app, capsys, "schedule", "pause", "report")
    found = listed()
    assert (found["nightly"]["origin"], found["nightly"]["schedule"]) == ("changed", "<freq: 1.00 hour>")
    assert (found["report"]["paused"], found["report"]["next_run"]) == (True, None)

    tell(app, capsys, "schedule", "run-now", "report")
    assert "report is resumed." in tell(app, capsys, "schedule", "resume", "report")
    assert listed()["report"]["times"] == 1
    assert app.transport.size("slow") == 1
    tell(app, capsys, "schedule", "remove", "report")
    assert listed().keys() == {"nightly"}


def test_schedulers_with_a_file_are_asked_and_told_there(
    app: Celeriac, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "schedule")
    scheduler = PersistentScheduler(app, schedule_filename=file)
    scheduler.tick()

    elsewhere = tell(app, capsys, "schedule", "pause", "nightly")
    assert "No scheduler leads at" in elsewhere
    assert "Schedulers that run with -s FILE agree in that file" in elsewhere
    told = tell(app, capsys, "schedule", "-s", file, "add", "often", "-t", "t", "--every", "60")
    assert "No scheduler leads" not in told
    scheduler.look_seconds = 0
    scheduler._next_look = 0
    scheduler.tick()
    status = tell(app, capsys, "beat", "-s", file, "status")
    scheduler.close()

    assert "entries   2" in status
    assert "paused" not in tell(app, capsys, "schedule", "-s", file, "list")


def test_a_table_is_for_people(
    app: Celeriac, scheduler: PersistentScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tell(app, capsys, "schedule", "list")

    assert "nightly  prog.clean  <crontab: 0 3 * * * (m/h/dM/MY/d)>" in table
    assert "code, missed=once" in table


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("add", "x", "-t", "t"), "Say when: --every SECONDS"),
        (
            ("add", "x", "-t", "t", "--every", "1", "--crontab", "* * * * *"),
            "three ways to say when: take one",
        ),
        (("add", "x", "-t", "t", "--every", "1", "--tz", "UTC"), "--tz is the time zone of a --crontab"),
        (("add", "x", "-t", "t", "--crontab", "0 0 30 2 *"), "this crontab is never due"),
        (("add", "x", "-t", "t", "--crontab", "61 * * * *"), "minute"),
        (("add", "x", "-t", "t", "--crontab", "* * * * *", "--tz", "Mars"), "there is no time zone 'Mars'"),
        (("add", "x", "-t", "t", "--every", "1", "-a", "{}"), "--args is a list in JSON, not {}"),
        (("add", "x", "-t", "t", "--every", "1", "-k", "{"), "--kwargs is no JSON"),
        (("add", "nightly", "-t", "t", "--every", "1"), "there is an entry named 'nightly' already"),
        (("pause", "nightli"), "did you mean 'nightly'?"),
        (("remove", "nightly"), "is in the code: remove it there"),
    ],
)
def test_what_cannot_be_is_told(
    app: Celeriac, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert says in " ".join(tell(app, capsys, "schedule", *arguments, code=2).split())


def test_the_status_is_a_check_of_health(app: Celeriac, capsys: pytest.CaptureFixture[str]) -> None:
    assert "leader    nobody" in tell(app, capsys, "beat", "status", code=1)
    assert "No scheduler has led" in tell(app, capsys, "schedule", "list")

    scheduler = PersistentScheduler(app)
    scheduler.tick()
    told = json.loads(tell(app, capsys, "beat", "status", "--json"))
    scheduler.close()

    assert (told["sends"], told["entries"], told["lag_seconds"]) == (True, 1, 0.0)
    assert told["store"].endswith("broker.db")
