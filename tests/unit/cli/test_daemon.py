"""Commands that go on for long: their files, and which user and group they are."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from celeriac import Celeriac
from celeriac.cli import daemon, events
from celeriac.cli.detach import detach
from celeriac.cli.main import run
from processes import user_environment

Show = pytest.CaptureFixture[str]
COMMANDS = [["worker"], ["beat"], ["events", "--camera", "prog.Camera"]]
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def app() -> Celeriac:
    return Celeriac("daemons", broker="memory://daemons", set_as_current=False)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--uid=no-such-user", "There is no user 'no-such-user'"),
        ("--gid=no-such-group", "There is no group 'no-such-group'"),
        ("--umask=9", "'9' is no octal number"),
    ],
)
def test_who_there_is_not_is_told(
    app: Celeriac, words: list[str], option: str, text: str, capsys: Show
) -> None:
    assert run([*words, option], app=app) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_what_no_option_says_is_a_setting(app: Celeriac, words: list[str], capsys: Show) -> None:
    app.conf[f"{words[0]}_uid"] = "no-such-user"

    assert run(words, app=app) == 2
    assert "There is no user 'no-such-user'" in capsys.readouterr().err


def test_files_are_those_of_options_before_those_of_settings(app: Celeriac) -> None:
    app.conf.worker_logfile = "setting.log"
    app.conf.worker_pidfile = "setting.pid"
    given: dict[str, Any] = dict.fromkeys(daemon.Daemon.__struct_fields__)

    asked = daemon.taken(app, "worker", given | {"pidfile": "option.pid"})

    assert (asked.logfile, asked.pidfile, asked.uid) == ("setting.log", "option.pid", None)


def test_a_process_becomes_whom_it_is_told(tmp_path: Path) -> None:
    program = (
        "import os; from celeriac.cli.daemon import Daemon\n"
        "Daemon(logfile=None, pidfile=None, executable=None, uid='nobody', gid=None, umask='027').become()\n"
        "print(os.getresuid(), os.getresgid(), oct(os.umask(0)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=user_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )

    if os.geteuid() == 0:
        user, group = NOBODY.pw_uid, NOBODY.pw_gid
        assert done.stdout == f"({user}, {user}, {user}) ({group}, {group}, {group}) 0o27\n", done.stderr
    else:
        assert "may not become user nobody" in done.stderr


def test_settings_may_stand_behind_the_command(app: Celeriac, capsys: Show) -> None:
    words = [
        "worker",
        "--pidfile=/no/such/folder/x",
        "--disable-prefetch",
        "--",
        "worker.max_tasks_per_child=7",
    ]

    assert run(words, app=app) == 73  # after the settings were made

    assert app.conf.worker_disable_prefetch is True
    assert app.conf.worker_max_tasks_per_child == 7


@pytest.mark.parametrize(
    ("setting", "text"), [("nonsense", "write name=value"), ("worker.concurrency=(int)many", "(int)many")]
)
def test_what_is_no_setting_behind_the_command_is_refused(
    app: Celeriac, setting: str, text: str, capsys: Show
) -> None:
    assert run(["worker", "--pidfile=/no/such/folder/x", "--", setting], app=app) == 2
    assert text in capsys.readouterr().err


def test_a_camera_goes_on_in_the_background(app: Celeriac, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str | None] = []

    def begin(program: Sequence[str], executable: str | None) -> int:
        begun.append(executable)
        return 1

    monkeypatch.setattr(events, "detach", begin)

    assert run(["events", "--camera", "prog.Camera", "--detach", "--executable=/opt/py"], app=app) == 0
    assert begun == ["/opt/py"]


def test_an_interpreter_that_is_not_there_is_told(capsys: Show) -> None:
    with pytest.raises(click.ClickException, match="/no/such/python cannot be run: No such file"):
        detach(["python", "-m", "celery", "worker", "--detach"], "/no/such/python")
