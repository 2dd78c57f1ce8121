"""A step that every consumer has, as a place before and after which programs put their own."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker.consumer.connection import Connection

__all__ = ("Events",)


class Events(bootsteps.Step):
    """What monitors are told, ``consumer.event_dispatcher``."""

    requires: Any = (Connection,)
