"""Finding the ``tasks`` modules of packages."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from celeriac.settings.load import import_by_name


def discover(package: str, related_name: str | None) -> ModuleType | None:
    """Import a module of a package, if the package has it, and return it.

    Args:
        package: The package's name, or the dotted name of a Django ``AppConfig``.
        related_name: The module's name; None imports the package itself.

    Raises:
        ImportError: The package cannot be imported, or the module fails to import something itself.
    """
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{package}.".startswith(f"{exc.name}."):
            raise  # the package is there, but something that it imports is not
        package = str(getattr(import_by_name(package), "name", package))
        importlib.import_module(package)
    if not related_name:
        return importlib.import_module(package)
    name = f"{package}.{related_name}"
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None  # the package is a plain module and has none below it
    return importlib.import_module(name) if found is not None else None
