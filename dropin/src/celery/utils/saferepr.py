"""Values as texts of bounded size."""

from __future__ import annotations

import sys
from typing import Any

from celeriac import saferepr as core

__all__ = ("saferepr",)


def saferepr(o: Any, maxlen: int | None = None, maxlevels: int = 3, seen: set[Any] | None = None) -> str:
    """Return the repr of a value, cut where it is longer than ``maxlen``; never raises nor follows a cycle.

    Args:
        o: The value.
        maxlen: Characters at most; None for all.
        maxlevels: Taken, and without a meaning: size is what bounds it.
        seen: Likewise.
    """
    return core.saferepr(o, sys.maxsize if maxlen is None else maxlen)
