"""The loader of every app."""

from __future__ import annotations

from celery.loaders.base import BaseLoader

__all__ = ("AppLoader",)


class AppLoader(BaseLoader):
    """Imports an app's modules."""
