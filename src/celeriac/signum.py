"""Signals as they are named in commands and written down: ``TERM``, ``SIGTERM`` or 15."""

from __future__ import annotations

import signal as signals
from typing import Final

_USUAL: Final = "SIGTERM"


def signal_name(signal: str | int | None) -> str:
    """Return a signal as it is written down: ``SIGTERM`` for every way to say it, and when none is said.

    What no signal of this machine is called stays as it is: it may be one where the task runs.
    """
    text = str(signal or _USUAL).upper()
    if text.isdecimal():
        try:
            return signals.Signals(int(text)).name
        except ValueError:
            return text
    return text if text.startswith("SIG") else f"SIG{text}"


def signal_number(name: str | int) -> int:
    """Return the number of a signal by its name, with or without ``SIG``, or by itself.

    Raises:
        ValueError: There is no such signal.
    """
    text = signal_name(name)
    try:
        return int(signals.Signals(int(text)) if text.isdecimal() else signals.Signals[text])
    except KeyError:
        raise ValueError(f"{name!r} is no signal of this machine.") from None
