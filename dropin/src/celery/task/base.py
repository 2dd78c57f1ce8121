"""The class of tasks, by its name of Celery 3."""

from __future__ import annotations

from celery.app.task import Task

__all__ = ["Task"]
