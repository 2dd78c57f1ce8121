"""The small functions of celery.utils beside real Celery's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = os.pathsep.join(str(HERE.parents[1] / part) for part in ("src", "dropin/src"))


def worth(python: Path | str, path: str = "") -> dict[str, str]:
    """Return what each expression is worth on one side."""
    run = subprocess.run(
        [python, "-W", "ignore", str(HERE / "utilities.py")],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    values: dict[str, str] = json.loads(run.stdout.splitlines()[-1])
    return values


def test_small_functions_return_what_celerys_do(each_celery_python: Path) -> None:
    real, ours = worth(each_celery_python), worth(sys.executable, OURS)

    apart = {
        expression: (value, ours[expression])
        for expression, value in real.items()
        if ours[expression] != value
    }
    assert apart == {}
    assert len(real) > 250
