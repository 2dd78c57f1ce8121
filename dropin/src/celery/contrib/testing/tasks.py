"""The task that says whether a worker is there."""

from __future__ import annotations

from celery import shared_task

__all__ = ("ping",)


@shared_task(name="celery.ping")
def ping() -> str:
    """Answer."""
    return "pong"
