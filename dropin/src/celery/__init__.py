"""Celery's names, on Celeriac.

Nothing is imported before it is asked for: ``from celery import Celery`` does not load results or canvas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from celery._state import current_app as current_app
    from celery._state import current_task as current_task
    from celery.app import shared_task as shared_task
    from celery.app.base import Celery as Celery
    from celery.app.task import Task as Task
    from celery.app.utils import bugreport as bugreport
    from celery.canvas import Signature as Signature
    from celery.canvas import chain as chain
    from celery.canvas import chord as chord
    from celery.canvas import chunks as chunks
    from celery.canvas import group as group
    from celery.canvas import maybe_signature as maybe_signature
    from celery.canvas import signature as signature
    from celery.canvas import subtask as subtask
    from celery.canvas import xmap as xmap
    from celery.canvas import xstarmap as xstarmap
    from celery.utils import uuid as uuid


class version_info_t(NamedTuple):  # noqa: N801 - Celery's name
    """A version, comparable with tuples."""

    major: int
    minor: int
    micro: int
    releaselevel: str
    serial: str


# The version of Celery whose names and behaviour these are; the distribution adds `+celeriac.N` to it.
SERIES = "celeriac"
VERSION: version_info_t = version_info_t(5, 7, 0, "", "")
version_info: version_info_t = VERSION
__version__ = "5.7.0"
VERSION_BANNER = f"{__version__} ({SERIES})"

_SOURCES = {
    "Celery": "celery.app.base",
    "Signature": "celery.canvas",
    "Task": "celery.app.task",
    "bugreport": "celery.app.utils",
    "chain": "celery.canvas",
    "chord": "celery.canvas",
    "chunks": "celery.canvas",
    "current_app": "celery._state",
    "current_task": "celery._state",
    "group": "celery.canvas",
    "maybe_signature": "celery.canvas",
    "shared_task": "celery.app",
    "signature": "celery.canvas",
    "subtask": "celery.canvas",
    "uuid": "celery.utils",
    "xmap": "celery.canvas",
    "xstarmap": "celery.canvas",
}
_MODULES = frozenset(
    {
        "_state", "app", "apps", "beat", "bin", "bootsteps", "canvas", "concurrency",
        "contrib", "decorators", "events",
        "exceptions", "execute", "fixups", "loaders", "local", "platforms", "registry", "result", "schedules",
        "security", "signals", "states", "task", "utils", "worker",
    }
)  # fmt: skip

__all__ = (
    "Celery",
    "Signature",
    "Task",
    "bugreport",
    "chain",
    "chord",
    "chunks",
    "current_app",
    "current_task",
    "group",
    "maybe_signature",
    "shared_task",
    "signature",
    "subtask",
    "uuid",
    "xmap",
    "xstarmap",
)


def __getattr__(name: str) -> Any:  # Any: whatever bears the name
    if name in _SOURCES:
        found = getattr(importlib.import_module(_SOURCES[name]), name)
    elif name in _MODULES:
        found = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_SOURCES, *_MODULES})
