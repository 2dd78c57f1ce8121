"""A group that one side has saved in a database is restored by the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fleet import SIDES, Side
from processes import user_environment

pytestmark = pytest.mark.timeout(400)  # the first test waits for real Celery to be installed

PROGRAM = """
import sys
from celery import Celery

app = Celery("proj", broker="memory://", backend=sys.argv[1])
if sys.argv[2] == "save":
    for number in range(3):
        app.tasks["celery.accumulate"].update_state(task_id=f"task-{number}", state="SUCCESS", meta=number)
    one, two, three = (app.AsyncResult(f"task-{number}") for number in range(3))
    one.parent = app.AsyncResult("before")
    app.GroupResult("saved", [one, app.GroupResult("inner", [two, three])]).save()
else:
    group = app.GroupResult.restore("saved")
    print(group.id, group[0].parent, group[1].id, group.get(timeout=10))
    group.delete()
    print(app.GroupResult.restore("saved"))
"""


@pytest.mark.parametrize("saves", SIDES)
def test_a_group_is_restored_by_the_other(saves: Side, celery_python: Path, tmp_path: Path) -> None:
    def run(side: Side, what: str) -> str:
        python = str(celery_python) if side == "real" else sys.executable
        environment = user_environment(tmp_path)
        if side == "real":
            del environment["PYTHONPATH"]
        return subprocess.run(
            [python, "-W", "ignore", "-c", PROGRAM, f"db+sqlite:///{tmp_path}/results.db", what],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=True,
        ).stdout

    run(saves, "save")

    restores: Side = "ours" if saves == "real" else "real"
    assert run(restores, "restore") == "saved before inner [0, [1, 2]]\nNone\n"
