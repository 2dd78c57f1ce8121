"""Signals by their names."""

from __future__ import annotations

import signal

import pytest

from celeriac.signum import signal_name, signal_number


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (None, "SIGTERM"),
        ("", "SIGTERM"),
        ("KILL", "SIGKILL"),
        ("sigusr1", "SIGUSR1"),
        (9, "SIGKILL"),
        ("9", "SIGKILL"),
        (signal.SIGINT, "SIGINT"),
        ("SIGELSEWHERE", "SIGELSEWHERE"),
        (4711, "4711"),
    ],
)
def test_a_signal_is_written_in_one_way(said: str | int | None, name: str) -> None:
    assert signal_name(said) == name


@pytest.mark.parametrize("said", ["KILL", "SIGKILL", "sigkill", "9", 9])
def test_a_signal_has_a_number(said: str | int) -> None:
    assert signal_number(said) == 9


@pytest.mark.parametrize("said", ["SIGELSEWHERE", 4711])
def test_what_is_no_signal_here_is_an_error(said: str | int) -> None:
    with pytest.raises(ValueError, match=str(said)):
        signal_number(said)
