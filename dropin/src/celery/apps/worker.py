"""The worker that ``celery worker`` runs, for programs that make one themselves."""

from __future__ import annotations

from celery.worker.worker import WorkController

__all__ = ("Worker",)


class Worker(WorkController):
    """A worker; see `celery.worker.WorkController`."""
