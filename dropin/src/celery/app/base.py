"""The app: Celeriac's own class."""

from __future__ import annotations

from celeriac.app import Celeriac as Celery
from celeriac.settings import Settings as PendingConfiguration
from celery import _state  # noqa: F401 - from here on new apps are known, current and shared

__all__ = ("App", "Celery", "PendingConfiguration")

App = Celery
