"""Loaders: what imports the modules of tasks. Settings are read by the app itself."""

from __future__ import annotations

from typing import Any

from celeriac.settings.load import import_by_name

__all__ = ("LOADER_ALIASES", "get_loader_cls")

LOADER_ALIASES = {"app": "celery.loaders.app:AppLoader", "default": "celery.loaders.default:Loader"}


def get_loader_cls(loader: type[Any] | str) -> type[Any]:
    """Return a class of loaders by its alias or dotted name."""
    if not isinstance(loader, str):
        return loader
    found: type[Any] = import_by_name(LOADER_ALIASES.get(loader, loader))
    return found
