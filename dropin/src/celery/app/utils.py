"""What to say about an app when something is wrong with it."""

from __future__ import annotations

from celeriac.app import Celeriac
from celeriac.bugreport import describe
from celeriac.settings import Settings
from celery._state import app_or_default

__all__ = ("Settings", "bugreport")


def bugreport(app: Celeriac | None = None) -> str:
    """Return the versions and settings that help to understand a problem, secrets hidden."""
    return describe(app_or_default(app))
