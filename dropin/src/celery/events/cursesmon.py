"""Events on the terminal: Celeriac's own."""

from __future__ import annotations

from typing import Any

from celeriac.cli import evtop as core
from celeriac.cli.evtop import CursesMonitor
from celery._state import app_or_default

__all__ = ("CursesMonitor", "evtop")


def evtop(app: Any = None) -> None:
    """Show workers and tasks on the terminal until somebody quits."""
    core.evtop(app_or_default(app))
