"""How long a task that fails waits before each retry, told before it does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from celeriac.cli.main import run

PROGRAM = """
from celeriac import Celeriac
app = Celeriac("prog", broker="memory://{name}", set_as_current=False)

@app.task(name="by.hand", max_retries=2, default_retry_delay=7)
def by_hand(): ...

@app.task(name="growing", autoretry_for=(OSError,), retry_backoff=3, retry_backoff_max=20, retry_jitter=False,
          retry_kwargs={{"max_retries": 4}})
def growing(): ...

@app.task(name="jittering", autoretry_for=(OSError,), retry_backoff=True, max_retries=None)
def jittering(): ...

@app.task(name="steady", autoretry_for=(OSError,), retry_kwargs={{"countdown": 5}}, max_retries=1)
def steady(): ...

@app.task(name="once", max_retries=0)
def once(): ...
"""
Show = pytest.CaptureFixture[str]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module with an app, in the working directory."""
    name = f"retry_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(PROGRAM.format(name=name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize(
    ("task", "delays"),
    [
        ("by.hand", [(7, 7, 7), (7, 7, 14)]),
        ("growing", [(3, 3, 3), (6, 6, 9), (12, 12, 21), (20, 20, 41)]),
        ("jittering", [(0, 1, 1), (0, 2, 3), (0, 4, 7)]),  # and so on
        ("steady", [(5, 5, 5)]),
        ("once", []),
    ],
)
def test_each_retry_is_told_with_its_delay(
    program: str, capsys: Show, task: str, delays: list[tuple[float, float, float]]
) -> None:
    assert (
        run(["-A", program, "-q", "retry-preview", task, "--json", "-n", "3" if task == "jittering" else "9"])
        == 0
    )

    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told == [
        {"retry": number, "least": least, "most": most, "at most in all": total}
        for number, (least, most, total) in enumerate(delays, 1)
    ]


def test_people_get_a_table(program: str, capsys: Show) -> None:
    assert run(["-A", program, "retry-preview", "jittering", "-n", "2"]) == 0

    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["retry", "least", "most", "at", "most", "in", "all"]
    assert [row.split() for row in rows[:2]] == [["1", "0", "1", "1"], ["2", "0", "2", "3"]]
    assert rows[2:] == ["There are more; -n shows them."]


def test_a_task_that_is_not_there_is_an_error(program: str, capsys: Show) -> None:
    assert run(["-A", program, "retry-preview", "growin"]) != 0

    assert "Did you mean growing?" in capsys.readouterr().err
