"""Events as lines: Celeriac's own."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from celeriac.cli import evdump as core
from celeriac.cli.evdump import Dumper, humanize_type
from celery._state import app_or_default

__all__ = ("Dumper", "evdump", "humanize_type")


def evdump(app: Any = None, out: TextIO = sys.stdout) -> None:
    """Write events as lines until interrupted."""
    core.evdump(app_or_default(app), out)
