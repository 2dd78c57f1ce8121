"""What a newcomer types first does what it says there."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from pathlib import Path

import psutil

from mission import Shell
from processes import ROOT

README = (ROOT / "README.md").read_text()


def test_the_first_program_runs_as_the_readme_has_it(tmp_path: Path) -> None:
    program, *_ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    commands = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)[0].splitlines()
    _, start_worker, call = (shlex.split(line, comments=True) for line in commands)
    (tmp_path / "tasks.py").write_text(program)
    shell = Shell(tmp_path, tmp_path, {})

    worker = shell.start(sys.executable, "-m", *start_worker)
    worker.wait_for(r"\[queues\]")
    answer = shell.run(*call)

    assert len(program.splitlines()) < 20
    assert answer == "8\n"
    assert worker.stop() == 0
    shell.close()


def test_the_demo_does_the_main_job_and_leaves_nothing(tmp_path: Path) -> None:
    shell = Shell(ROOT / "examples" / "demo", tmp_path, {"TMPDIR": str(tmp_path), "COLUMNS": "100"})

    demo = shell.start(sys.executable, "run.py")

    assert demo.finish(150) == 0, demo.output
    assert re.search(r"fetch slow pages +│ +10 │", demo.output)
    assert re.search(r"count the standard library +│ +[\d,]{3,} │", demo.output)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("celeriac-demo")] == []
    shell.close()


def test_the_demo_can_be_interrupted(tmp_path: Path) -> None:
    shell = Shell(ROOT / "examples" / "demo", tmp_path, {"TMPDIR": str(tmp_path)})
    demo = shell.start(sys.executable, "run.py")
    demo.wait_for("the worker was ready")

    demo.signal(signal.SIGINT)

    assert demo.finish() == 128 + signal.SIGINT
    assert "Stopped; nothing is left running." in demo.output
    assert "Traceback" not in demo.output
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("celeriac-demo")] == []
    everybody = psutil.process_iter(["environ"])
    assert not [one for one in everybody if (one.info["environ"] or {}).get("TMPDIR") == str(tmp_path)]
    shell.close()
