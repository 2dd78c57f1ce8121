"""Messages go to another broker, settings get their new names, and a session has the app at hand."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.cli.main import run
from worker_program import until

Show = pytest.CaptureFixture[str]
OLD = """\
from x import CELERY_ACKS_LATE
CELERY_ACKS_LATE = True
BROKER_URL: str = "redis://"
DEBUG = True
if CELERY_ACKS_LATE == True:
    CELERYD_CONCURRENCY=3
"""
NEW = """\
from x import CELERY_ACKS_LATE
task_acks_late = True
broker_url: str = "redis://"
DEBUG = True
if CELERY_ACKS_LATE == True:
    worker_concurrency=3
"""
DJANGO = NEW.replace("task_acks_late", "CELERY_TASK_ACKS_LATE").replace("broker_url", "CELERY_BROKER_URL")
DJANGO = DJANGO.replace("worker_concurrency", "CELERY_WORKER_CONCURRENCY")
PROGRAM = """
from celeriac import Celeriac
app = Celeriac("prog", broker="memory://", set_as_current=False)

@app.task
def add(x, y):
    return x + y
"""


@pytest.mark.parametrize("taken", [False, True])
def test_chosen_tasks_go_to_the_other_broker_and_leave_this_one_if_wanted(
    taken: bool, tmp_path: Path, capsys: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, target = (f"sqlite:///{tmp_path}/{name}.db" for name in ("source", "target"))
    with Celeriac("a", broker=source, set_as_current=False) as old:
        ids = [old.send_task(name).id for name in ("t.add", "t.mail", "t.add")]

        monkeypatch.setenv("CELERY_BROKER_URL", "memory://")  # which is not meant here
        code = run(["migrate", source, target, "-T", "t.add", *(["-a"] if taken else [])])

        assert code == 0
        assert capsys.readouterr().out.splitlines() == [
            f"Migrating task 1/3: t.add[{ids[0]}]",
            f"Migrating task 2/3: t.add[{ids[2]}]",
        ]
        assert old.transport.ready("celery") == (1 if taken else 3)
    monkeypatch.delenv("CELERY_BROKER_URL")
    with Celeriac("b", broker=target, set_as_current=False) as new:
        assert new.transport.ready("celery") == 2


def test_what_comes_later_goes_too_if_wanted(tmp_path: Path, capsys: Show) -> None:
    source, target = (f"sqlite:///{tmp_path}/{name}.db" for name in ("source", "target"))
    with Celeriac("a", broker=source, set_as_current=False) as old:
        old.send_task("t.first")

        def send_more() -> None:
            until(lambda: old.transport.ready("celery") == 0)
            old.send_task("t.second")

        sending = threading.Thread(target=send_more)
        sending.start()
        assert run(["migrate", source, target, "-a", "-F", "-n", "2", "-t", "0.02"]) == 0
        sending.join()

    told = [line.partition("[")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == ["Migrating task 1/1: t.first", "Migrating task 2/2: t.second"]


def test_copying_for_ever_is_refused(tmp_path: Path, capsys: Show) -> None:
    source, target = (f"sqlite:///{tmp_path}/{name}.db" for name in ("source", "target"))

    assert run(["migrate", source, target, "-F"]) == 2
    assert "--forever needs --ack-messages" in capsys.readouterr().err


def test_a_broker_is_not_migrated_to_itself(tmp_path: Path, capsys: Show) -> None:
    url = f"sqlite:///{tmp_path}/broker.db"

    assert run(["migrate", url, url]) == 2

    assert "are one broker" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "expected"), [([], NEW), (["--django"], DJANGO)])
def test_settings_get_their_new_names_and_the_old_file_stays(
    options: list[str], expected: str, tmp_path: Path, capsys: Show
) -> None:
    file = tmp_path / "celeryconfig.py"
    file.write_text(OLD)

    assert run(["upgrade", "settings", str(file), *options]) == 0

    assert "Changes to your setting have been made!" in capsys.readouterr().out
    assert file.read_text() == expected
    assert Path(f"{file}.orig").read_text() == OLD


def test_settings_that_are_new_stay_as_they_are(tmp_path: Path, capsys: Show) -> None:
    file = tmp_path / "celeryconfig.py"
    file.write_text("task_acks_late = True\n")

    assert run(["upgrade", "settings", str(file)]) == 0

    assert capsys.readouterr().out == "Does not seem to require any changes :-)\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_session_has_the_app_the_canvas_and_the_tasks(
    tmp_path: Path, capsys: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"shell_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(
        "sys.stdin", io.StringIO("print(app is celery, group([add.s(1, 2)]).tasks[0].task)\n")
    )

    assert run(["-A", name, "shell", "--python"]) == 0

    assert f"True {name}.add" in capsys.readouterr().out
