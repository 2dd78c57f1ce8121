"""The step of a worker that changes the number of its slots, as a place before and after others."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker.components import Pool

__all__ = ("WorkerComponent",)


class WorkerComponent(bootsteps.Step):
    """What ``--autoscale`` asks for."""

    label: str | None = "Autoscaler"
    conditional: bool = True
    requires: Any = (Pool,)
