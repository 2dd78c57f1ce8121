"""What mypy and pyright make of programs that use tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from processes import ROOT

SAMPLES = ROOT / "tests" / "typing" / "samples"
SOURCES = [str(ROOT / "src"), str(ROOT / "dropin" / "src")]

Refusals = dict[str, list[int]]  # by the sample's name: the lines that a checker refuses


def mypy(folder: Path) -> Refusals:
    """Return what mypy refuses in the programs of a folder."""
    # Silent about what is imported, as about an installed package.
    options = ["--strict", "--no-error-summary", "--config-file=", "--follow-imports=silent"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--cache-dir", ".cache", "--output", "json", "."],
        cwd=folder,
        env={**os.environ, "MYPYPATH": os.pathsep.join(SOURCES)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.stderr == ""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return _by_sample([(item["file"], item["line"]) for item in found if item["severity"] == "error"])


def pyright(folder: Path) -> Refusals:
    """Return what pyright refuses in the programs of a folder."""
    project = folder / "pyrightconfig.json"
    project.write_text(json.dumps({"extraPaths": SOURCES, "typeCheckingMode": "standard"}))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(project)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    return _by_sample(
        [(item["file"], item["range"]["start"]["line"] + 1) for item in found if item["severity"] == "error"]
    )


def _by_sample(found: list[tuple[str, int]]) -> Refusals:
    lines: Refusals = {}
    for file, line in sorted(set(found)):
        lines.setdefault(Path(file).name, []).append(line)
    return lines


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Refusals]:
    """What a checker refuses in copies of the samples; each checker runs once."""

    @cache
    def of(checker: str) -> Refusals:
        folder = tmp_path_factory.mktemp(checker)
        for sample in SAMPLES.glob("*.py"):
            (folder / sample.name).write_text(sample.read_text())
        return {"mypy": mypy, "pyright": pyright}[checker](folder)

    return of


@pytest.mark.together("type checkers")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("sample", ["good.py", "dropin_good.py"])
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_right_calls_are_accepted_and_have_the_right_types(
    refusals: Callable[[str], Refusals], checker: str, sample: str
) -> None:
    assert refusals(checker).get(sample, []) == []


@pytest.mark.together("type checkers")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("sample", ["bad.py", "dropin_bad.py"])
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_wrong_calls_are_refused(refusals: Callable[[str], Refusals], checker: str, sample: str) -> None:
    text = (SAMPLES / sample).read_text()
    wrong = [number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# error")]

    assert refusals(checker)[sample] == wrong
