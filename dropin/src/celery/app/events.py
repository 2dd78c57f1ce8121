"""The events of an app: Celeriac's."""

from __future__ import annotations

from celeriac.events.events import Events

__all__ = ("Events",)
