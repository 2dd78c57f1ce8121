"""What mypy and pyright make of programs that use tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parent / "samples"
SOURCE = Path(__file__).resolve().parents[2] / "src"


def mypy(sample: Path, cache: Path) -> list[int]:
    """Return the lines of a program that mypy refuses."""
    # Silent about what is imported, as about an installed package.
    options = ["--strict", "--no-error-summary", "--config-file=", "--follow-imports=silent"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--cache-dir", str(cache), "--output", "json", str(sample)],
        env={**os.environ, "MYPYPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.stderr == ""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return sorted({item["line"] for item in found if item["severity"] == "error"})


def pyright(sample: Path, cache: Path) -> list[int]:
    """Return the lines of a program that pyright refuses."""
    (cache / sample.name).write_text(sample.read_text())
    settings = {"include": [sample.name], "extraPaths": [str(SOURCE)], "typeCheckingMode": "standard"}
    project = cache / "pyrightconfig.json"
    project.write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(project)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    return sorted({item["range"]["start"]["line"] + 1 for item in found if item["severity"] == "error"})


CHECKERS = {"mypy": mypy, "pyright": pyright}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", CHECKERS)
def test_right_calls_are_accepted_and_have_the_right_types(checker: str, tmp_path: Path) -> None:
    if checker == "pyright" and not _pyright_runs():
        pytest.skip("pyright cannot run here: it needs Node.js, which it downloads on first use")
    assert CHECKERS[checker](SAMPLES / "good.py", tmp_path) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", CHECKERS)
def test_wrong_calls_are_refused(checker: str, tmp_path: Path) -> None:
    if checker == "pyright" and not _pyright_runs():
        pytest.skip("pyright cannot run here: it needs Node.js, which it downloads on first use")
    sample = SAMPLES / "bad.py"
    wrong = [
        number for number, line in enumerate(sample.read_text().splitlines(), 1) if line.endswith("# error")
    ]

    assert CHECKERS[checker](sample, tmp_path) == wrong


def _pyright_runs() -> bool:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pyright", "--version"], capture_output=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
