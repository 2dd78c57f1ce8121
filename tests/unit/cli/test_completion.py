"""What a shell is told when somebody presses Tab."""

from __future__ import annotations

import pytest

from celeriac.cli.main import run


@pytest.mark.parametrize(
    ("words", "number", "offered"),
    [
        ("celeriac lo", "1", ["logtool"]),
        ("celeriac queue pa", "2", ["pause"]),
        ("celeriac worker --without-g", "2", ["--without-gossip"]),
    ],
)
def test_commands_and_options_are_completed(
    words: str,
    number: str,
    offered: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("_CELERIAC_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", number)

    assert run([]) == 0

    assert [line.partition(",")[2] for line in capsys.readouterr().out.splitlines()] == offered
