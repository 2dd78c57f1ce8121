"""Celery's names for what a worker consists of."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery.worker.worker import WorkController

__all__ = ("WorkController",)


def __getattr__(name: str) -> Any:  # Any: a class
    if name == "WorkController":  # commands of remote control are imported without a worker
        return importlib.import_module("celery.worker.worker").WorkController
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
