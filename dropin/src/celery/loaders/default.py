"""The loader of programs that have no app of their own."""

from __future__ import annotations

from celery.loaders.base import BaseLoader

__all__ = ("Loader",)


class Loader(BaseLoader):
    """Imports an app's modules."""
