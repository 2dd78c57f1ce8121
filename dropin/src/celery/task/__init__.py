"""Names of Celery 3 and before: tasks of whichever app is current."""

from __future__ import annotations

from celery._state import current_task as current
from celery.app import shared_task as task
from celery.app.task import Task
from celery.canvas import chain, chord, group, subtask

__all__ = ["Task", "chain", "chord", "current", "group", "subtask", "task"]
