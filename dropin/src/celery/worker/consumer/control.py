"""A step that every consumer has, as a place before and after which programs put their own."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks

__all__ = ("Control",)


class Control(bootsteps.Step):
    """Listening to remote control."""

    requires: Any = (Tasks,)
