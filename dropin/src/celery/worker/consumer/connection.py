"""A step that every consumer has, as a place before and after which programs put their own."""

from __future__ import annotations

from celery import bootsteps

__all__ = ("Connection",)


class Connection(bootsteps.Step):
    """The connection of the steps, ``consumer.connection``."""
