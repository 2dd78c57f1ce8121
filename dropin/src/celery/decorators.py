"""The decorator of Celery 3 and before: tasks of whichever app is current."""

from __future__ import annotations

from celery.app import shared_task as task

__all__ = ["task"]
