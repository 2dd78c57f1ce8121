"""A step that every consumer has, as a place before and after which programs put their own."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker.consumer.connection import Connection

__all__ = ("Agent",)


class Agent(bootsteps.Step):
    """An actor beside the worker; there is none."""

    conditional: bool = True
    requires: Any = (Connection,)
