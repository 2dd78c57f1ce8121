"""A step that every consumer has, as a place before and after which programs put their own."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker.consumer.mingle import Mingle

__all__ = ("Tasks",)


class Tasks(bootsteps.Step):
    """Receiving tasks."""

    requires: Any = (Mingle,)
