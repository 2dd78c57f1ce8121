"""Workers' logs, read by `celery logtool`."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from celeriac.cli.main import run

LOG = """\
[2026-11-28 02:14:23,010: INFO/MainProcess] w1@vm ready.
[2026-11-28 02:14:24,001: INFO/MainProcess] Task proj.add[one] received
[2026-11-28 02:14:24,020: INFO/ForkPoolWorker-1] Task proj.add[one] succeeded in 0.0207s: 3
[2026-11-28 02:14:25,001: INFO/MainProcess] Received task: proj.add[old]
[2026-11-28 02:14:25,020: INFO/ForkPoolWorker-1] Task proj.add[old] succeeded in 0.0207s: 3
[2026-11-28 02:14:26,001: INFO/MainProcess] Task proj.fail[bad] received
[2026-11-28 02:14:26,020: ERROR/ForkPoolWorker-1] Task proj.fail[bad] raised unexpected: KeyError('x')
Traceback (most recent call last):
KeyError: 'x'
[2026-11-28 02:14:27,001: INFO/MainProcess] Task proj.slow[slow] received
[2026-11-28 02:14:28,001: INFO/MainProcess] Task proj.retry[again] received
[2026-11-28 02:14:28,020: INFO/ForkPoolWorker-1] Task proj.retry[again] retry: Retry in 1s: Error('boom')
[2026-11-28 02:14:29,001: INFO/MainProcess] Task proj.retry[again] received
[2026-11-28 02:14:29,020: INFO/ForkPoolWorker-1] Task proj.retry[again] succeeded in 1s: 'x'
[2026-11-28 02:14:30,001: INFO/MainProcess] Task proj.add[gone] received
[2026-11-28 02:14:30,001: INFO/MainProcess] Discarding revoked task: proj.add[gone]
"""
BAD = LOG.splitlines()[6:9]


@pytest.fixture
def log(tmp_path: Path) -> str:
    path = tmp_path / "worker.log"
    path.write_text(LOG)
    return str(path)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("traces", BAD),
        ("errors", BAD[:1]),
        ("incomplete", ["proj.slow[slow]: did not complete"]),
        ("debug", LOG.splitlines()[:1]),
    ],
)
def test_what_was_asked_for_is_shown(
    command: str, shown: list[str], log: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["logtool", command, log]) == 0

    assert capsys.readouterr().out.splitlines() == shown


def test_tasks_are_counted_over_all_files(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["logtool", "stats", log, log]) == 0

    shown = capsys.readouterr().out
    for line in (
        *("Task total: 6", "Task errors: 1", "Task retries: 2", "Task success: 3"),
        *("Task completed: 5", "Task incomplete: 1", "proj.add: 3", "proj.fail: 1"),
    ):
        assert f"\n{line}\n" in shown


def test_without_files_the_standard_input_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(LOG))

    assert run(["logtool", "errors"]) == 0

    assert capsys.readouterr().out.splitlines() == BAD[:1]
