"""Sending events: Celeriac's own class, which asks the current app where none is named."""

from __future__ import annotations

from typing import Any

from celeriac.events import dispatcher as core
from celery._state import app_or_default

__all__ = ("EventDispatcher",)


class EventDispatcher(core.EventDispatcher):
    """Sends events; see `celeriac.events.dispatcher.EventDispatcher`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self.app is None and kwargs.get("app") is None:
            kwargs["app"] = app_or_default()
        super().__init__(*args, **kwargs)
