"""Tasks: Celeriac's own class."""

from __future__ import annotations

from typing import Any

from celeriac.context import Context
from celeriac.task import EXEC_OPTIONS, Task
from celery import _state  # noqa: F401 - tasks without an app belong to the current one

__all__ = ("BaseTask", "Context", "Task", "TaskType", "extract_exec_options")

BaseTask = Task
TaskType = type


def extract_exec_options(task: Task[Any, Any]) -> dict[str, Any]:  # Any: option values
    """Return the attributes of a task that are publish options, where it has them."""
    return {name: getattr(task, name, None) for name in EXEC_OPTIONS}
