"""Celeriac: a distributed task queue that needs no server to begin with."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from celeriac import canvas as canvas
    from celeriac import errors as errors
    from celeriac import states as states
    from celeriac.app import Celeriac as Celeriac
    from celeriac.canvas import Signature as Signature
    from celeriac.canvas import StampingVisitor as StampingVisitor
    from celeriac.canvas import chain as chain
    from celeriac.canvas import chord as chord
    from celeriac.canvas import chunks as chunks
    from celeriac.canvas import group as group
    from celeriac.canvas import maybe_signature as maybe_signature
    from celeriac.canvas import signature as signature
    from celeriac.canvas import xmap as xmap
    from celeriac.canvas import xstarmap as xstarmap
    from celeriac.client import TaskCall as TaskCall
    from celeriac.context import Context as Context
    from celeriac.hooks import Hooks as Hooks
    from celeriac.hooks import Signal as Signal
    from celeriac.queues import Exchange as Exchange
    from celeriac.queues import Queue as Queue
    from celeriac.result import AsyncResult as AsyncResult
    from celeriac.result import EagerResult as EagerResult
    from celeriac.result import GroupResult as GroupResult
    from celeriac.result import ResultSet as ResultSet
    from celeriac.result import allow_join_result as allow_join_result
    from celeriac.task import Task as Task

# Where each public name lives: a name is imported when it is first used, so that a client pays for no more.
_HOMES = {
    "AsyncResult": "celeriac.result",
    "Celeriac": "celeriac.app",
    "Context": "celeriac.context",
    "EagerResult": "celeriac.result",
    "Exchange": "celeriac.queues",
    "GroupResult": "celeriac.result",
    "Hooks": "celeriac.hooks",
    "Queue": "celeriac.queues",
    "ResultSet": "celeriac.result",
    "Signal": "celeriac.hooks",
    "Signature": "celeriac.canvas",
    "StampingVisitor": "celeriac.canvas",
    "Task": "celeriac.task",
    "TaskCall": "celeriac.client",
    "allow_join_result": "celeriac.result",
    "chain": "celeriac.canvas",
    "chord": "celeriac.canvas",
    "chunks": "celeriac.canvas",
    "group": "celeriac.canvas",
    "maybe_signature": "celeriac.canvas",
    "signature": "celeriac.canvas",
    "xmap": "celeriac.canvas",
    "xstarmap": "celeriac.canvas",
}
_MODULES = frozenset({"canvas", "errors", "states"})

__all__ = [
    "AsyncResult",
    "Celeriac",
    "Context",
    "EagerResult",
    "Exchange",
    "GroupResult",
    "Hooks",
    "Queue",
    "ResultSet",
    "Signal",
    "Signature",
    "StampingVisitor",
    "Task",
    "TaskCall",
    "__version__",
    "allow_join_result",
    "canvas",
    "chain",
    "chord",
    "chunks",
    "errors",
    "group",
    "maybe_signature",
    "signature",
    "states",
    "xmap",
    "xstarmap",
]


def __getattr__(name: str) -> Any:  # Any: whatever bears the name; type checkers read the imports above
    if name in _MODULES:
        return importlib.import_module(f"celeriac.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'celeriac' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
