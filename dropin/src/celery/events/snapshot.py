"""Cameras: Celeriac's own, which ask the current app where none is named."""

from __future__ import annotations

from typing import Any

from celeriac.events import snapshot as core
from celery._state import app_or_default

__all__ = ("Polaroid", "evcam")


class Polaroid(core.Polaroid):
    """Looks at a state every so often; see `celeriac.events.snapshot.Polaroid`."""

    def __init__(self, state: Any, *args: Any, **kwargs: Any) -> None:
        kwargs["app"] = app_or_default(kwargs.get("app") or self.app)
        super().__init__(state, *args, **kwargs)


def evcam(
    camera: type[Any] | str, freq: float = 1.0, maxrate: float | str | None = None, app: Any = None, **_: Any
) -> None:
    """Hear events, and have a camera look at what they tell; see `celeriac.events.snapshot.evcam`."""
    core.evcam(app_or_default(app), camera, freq=freq, maxrate=maxrate)
