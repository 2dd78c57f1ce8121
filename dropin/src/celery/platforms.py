"""Exit codes and the kind of this system."""

from __future__ import annotations

import os
import platform

__all__ = (
    "EX_CANTCREAT",
    "EX_FAILURE",
    "EX_OK",
    "EX_UNAVAILABLE",
    "EX_USAGE",
    "IS_WINDOWS",
    "SYSTEM",
    "IS_macOS",
)

SYSTEM = platform.system()
IS_macOS: bool = SYSTEM == "Darwin"
IS_WINDOWS = SYSTEM == "Windows"

EX_OK = os.EX_OK
EX_FAILURE = 1
EX_UNAVAILABLE = os.EX_UNAVAILABLE
EX_USAGE = os.EX_USAGE
EX_CANTCREAT = os.EX_CANTCREAT
