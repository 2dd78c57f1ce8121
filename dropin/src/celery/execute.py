"""Sending of tasks by name through the current app, as ``celery.execute.send_task``."""

from __future__ import annotations

from typing import Any

from celery._state import get_current_app


def __getattr__(name: str) -> Any:  # Any: the app's bound method
    if name == "send_task":
        return get_current_app().send_task
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
