"""Pictures for Graphviz."""

from __future__ import annotations

import pytest

from celeriac.cli.main import run

Show = pytest.CaptureFixture[str]


def test_a_worker_is_drawn_with_what_it_consists_of(capsys: Show) -> None:
    assert run(["graph", "bootsteps"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[-1]) == ("digraph dependencies {", "}")
    assert '    "Gossip" -> "Mingle"' in lines
    assert '    "Connection" -> "Consumer"' in lines


def test_one_part_is_drawn_alone(capsys: Show) -> None:
    assert run(["graph", "bootsteps", "worker"]) == 0

    shown = capsys.readouterr().out
    assert '"Consumer" -> "Pool"' in shown
    assert "Gossip" not in shown


def test_workers_are_drawn_with_their_slots(capsys: Show) -> None:
    options = ["nodes:a,b,c", "threads:2,9", "tmax:3", "wmax:2", "broker:redis://x", 'backend:"y"']
    assert run(["graph", "workers", *options]) == 0

    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line.startswith('"a') and "->" in line] == [
        '"a" -> "redis://x"',
        '"a" -> "\\"y\\""',
        '"a 1" -> "a"',
        '"a 2" -> "a"',
    ]
    assert [line.rpartition("label=")[2] for line in lines if line.startswith('"a 2" [')] == ['"2"]']
    assert '"b … 9" -> "b"' in lines
    assert '"1 more" -> "redis://x"' in lines


def test_so_many_workers_are_numbered(capsys: Show) -> None:
    assert run(["graph", "workers", "nodes:2", "broker:redis://x", "backend:disabled"]) == 0

    shown = capsys.readouterr().out
    assert '"Worker 2" -> "redis://x"' in shown
    assert "disabled" not in shown


@pytest.mark.parametrize("setting", ["nods:a", "threads:many", "nothing"])
def test_what_is_no_setting_is_refused(setting: str, capsys: Show) -> None:
    assert run(["graph", "workers", setting]) == 2
    assert setting.partition(":")[0] in capsys.readouterr().err
