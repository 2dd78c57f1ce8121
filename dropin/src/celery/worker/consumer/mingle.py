"""A step that every consumer has, as a place before and after which programs put their own."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker.consumer.events import Events

__all__ = ("Mingle",)


class Mingle(bootsteps.Step):
    """Asking the other workers at the start."""

    requires: Any = (Events,)
