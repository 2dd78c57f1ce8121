"""Fits apps into the Django project that ``DJANGO_SETTINGS_MODULE`` names."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Any

from celeriac.app import Celeriac
from celery import _state
from celery.exceptions import FixupWarning

__all__ = ("DjangoFixup", "fixup")  # noqa: F822 - the first one: see `__getattr__`


def fixup(app: Celeriac) -> Any:  # Any: a DjangoFixup, or None outside of Django projects
    """Fit an app into the Django project; do nothing where there is none.

    The first app of a Django project is the default one: its server has threads that made no app.
    """
    module = os.environ.get("DJANGO_SETTINGS_MODULE")
    if not module:
        return None
    try:
        made = importlib.import_module("celeriac.contrib.django.fixup").fixup(app)
    except ModuleNotFoundError as exc:
        if exc.name != "django":
            raise
        text = f"DJANGO_SETTINGS_MODULE is {module!r}, but Django is not installed."
        warnings.warn(FixupWarning(text), stacklevel=2)
        return None
    if not _state.default_app:
        _state.set_default_app(app)
    return made


def __getattr__(name: str) -> Any:  # Any: a class
    if name == "DjangoFixup":  # Django need not be there
        return importlib.import_module("celeriac.contrib.django.fixup").DjangoFixup
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
