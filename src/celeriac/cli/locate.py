"""Finding the app that ``-A`` names."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from celeriac.app import Celeriac


class AppNotFound(Exception):
    """Raised when ``-A`` names nothing that is an app; the text says what was tried."""


def locate(name: str) -> Celeriac:
    """Return the app that ``-A`` names.

    Looks, in this order, at: the attribute after a colon; the module's ``app`` and ``celery``; its
    sub-module ``celery``; the first app among the module's names. The working directory can be imported
    from.

    Args:
        name: ``pkg.mod``, ``pkg.mod:attr`` or ``pkg``.

    Raises:
        AppNotFound: Nothing there is an app; import errors inside the module come through as they are.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module_name, _, attribute = name.partition(":")
    module = _import(module_name)
    if module is None:
        return _attribute_of_parent(module_name)
    if attribute:
        found = _walk(module, attribute)
        if isinstance(found, Celeriac):
            return found
        if isinstance(found, ModuleType):
            return _within(found)
        raise AppNotFound(f"{attribute!r} in module {module_name!r} is not a Celeriac app but {found!r}.")
    return _within(module)


def _import(name: str) -> ModuleType | None:
    """Import a module; None when that very module (not one that it imports) does not exist."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(exc.name + ".")):
            return None
        raise


def _attribute_of_parent(name: str) -> Celeriac:
    parent, _, attribute = name.rpartition(".")
    module = _import(parent) if parent else None
    found = getattr(module, attribute, None) if module is not None else None
    if isinstance(found, Celeriac):
        return found
    raise AppNotFound(f"The module {name} was not found.")


def _walk(module: ModuleType, path: str) -> object:
    found: object = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise AppNotFound(f"Module {module.__name__!r} has no attribute {path!r}.") from None
    return found


def _within(module: ModuleType) -> Celeriac:
    for attribute in ("app", "celery"):
        found = getattr(module, attribute, None)
        if isinstance(found, Celeriac):
            return found
    if hasattr(module, "__path__"):
        inner = _import(f"{module.__name__}.celery")
        if inner is not None:
            return _within(inner)
    for found in vars(module).values():
        if isinstance(found, Celeriac):
            return found
    raise AppNotFound(
        f"Module {module.__name__!r} has no app: expected a Celeriac instance named 'app' or 'celery' in it."
    )
