"""The tasks of the current app, as ``celery.registry.tasks``."""

from __future__ import annotations

from typing import Any

from celery._state import get_current_app


def __getattr__(name: str) -> Any:  # Any: a Registry
    if name == "tasks":
        return get_current_app().tasks
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
