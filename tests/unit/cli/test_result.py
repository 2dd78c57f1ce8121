"""``celery result``: the value, the progress while it runs, and JSON."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.cli.main import run
from celeriac.message import Outcome


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Celeriac:
    """An app that ``-A`` finds, in this process."""
    name = f"res_{tmp_path.name.replace('-', '_')}"
    text = f'from celeriac import Celeriac\napp = Celeriac("res", broker="memory://{name}", backend="memory://{name}")\n'
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Celeriac(name, broker=f"memory://{name}", backend=f"memory://{name}")


def store(app: Celeriac, id: str, result: Any, state: str = "SUCCESS") -> None:
    assert app.backend is not None
    app.backend.store([app.backend.encode(Outcome(id=id, state=state, result=result))])


def test_json_has_the_value_or_the_error(app: Celeriac, capsys: pytest.CaptureFixture[str]) -> None:
    store(app, "good", {"n": [1, None]})
    store(app, "bad", ValueError("boom"), "FAILURE")

    assert run(["-A", str(app.main), "result", "good", "--json"]) == 0
    assert run(["-A", str(app.main), "result", "bad", "--json"]) == 1

    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert good == {"task_id": "good", "state": "SUCCESS", "result": {"n": [1, None]}, "traceback": None}
    assert (bad["state"], bad["result"]) == ("FAILURE", {"type": "ValueError", "message": "boom"})


def test_followed_in_json_each_news_is_a_line(app: Celeriac, capsys: pytest.CaptureFixture[str]) -> None:
    store(app, "1", {"done": 1, "total": 4, "message": "one"}, "PROGRESS")
    threading.Timer(1.0, store, (app, "1", "end")).start()

    assert run(["-A", str(app.main), "result", "1", "--follow", "--json"]) == 0

    first, *_, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {
        "task_id": "1", "state": "PROGRESS", "done": 1, "total": 4, "message": "one", "fraction": 0.25,
    }  # fmt: skip
    assert (last["state"], last["result"]) == ("SUCCESS", "end")


def test_followed_a_bar_is_drawn_beside_the_result(
    app: Celeriac, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    store(app, "1", {"done": 1, "total": 4, "message": "sorting [red]"}, "PROGRESS")
    threading.Timer(1.0, store, (app, "1", "end")).start()

    assert run(["-A", str(app.main), "result", "1", "--follow"]) == 0

    printed = capsys.readouterr()
    assert printed.out == "end\n"
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.err)
    assert re.search(r"PROGRESS .*━.* 1/4 sorting \[red\]", shown)


def test_of_a_task_that_does_not_end_in_time_it_says_what_is_known(
    app: Celeriac, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["-A", str(app.main), "result", "nobody", "--timeout", "0.1"]) == 1
    assert "Task nobody is UNKNOWN still" in capsys.readouterr().err
