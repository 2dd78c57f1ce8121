"""Objects by name, and modules of the working directory."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from kombu.utils.imports import symbol_by_name

from celeriac.app import Celeriac

__all__ = (
    "NotAPackage",
    "cwd_in_path",
    "find_module",
    "gen_task_name",
    "import_from_cwd",
    "instantiate",
    "module_file",
    "qualname",
    "reload_from_cwd",
    "symbol_by_name",
)

Import = Callable[..., ModuleType]


class NotAPackage(Exception):
    """Raised for a module inside of what is no package."""


def qualname(obj: Any) -> str:  # Any: a class, function or instance
    """Return module and name of an object, or of its class where it has no name."""
    named = obj if hasattr(obj, "__name__") else type(obj)
    module, name = named.__module__, named.__qualname__
    return f"{module}.{name}" if module else str(name)


def instantiate(name: Any, *args: Any, **kwargs: Any) -> Any:  # Any: a class or its dotted name
    """Make an instance of a class that is given itself or by its dotted name."""
    return symbol_by_name(name)(*args, **kwargs)


@contextmanager
def cwd_in_path() -> Iterator[str | None]:
    """Let modules of the working directory be imported meanwhile; gives it, or None when they could be."""
    folder = os.getcwd()
    if folder in sys.path:
        yield None
        return
    sys.path.insert(0, folder)
    try:
        yield folder
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def find_module(module: str, path: str | None = None, imp: Import | None = None) -> ModuleType:
    """Return a module, one of the working directory too.

    Raises:
        NotAPackage: A part of the dotted name before its last is no package.
        ImportError: There is no such module.
    """
    do_import = imp or importlib.import_module
    with cwd_in_path():
        try:
            return do_import(module)
        except ImportError as exc:
            package = module.rpartition(".")[0]
            if package and not hasattr(do_import(package), "__path__"):
                raise NotAPackage(package) from exc
            raise


def import_from_cwd(module: str, imp: Import | None = None, package: str | None = None) -> ModuleType:
    """Return a module, one of the working directory too.

    Raises:
        ImportError: There is no such module.
    """
    with cwd_in_path():
        return (imp or importlib.import_module)(module, package=package)


def reload_from_cwd(module: ModuleType, reloader: Callable[[ModuleType], Any] | None = None) -> Any:
    """Import a module again, one of the working directory too."""
    with cwd_in_path():
        return (reloader or importlib.reload)(module)


def module_file(module: ModuleType) -> str | None:
    """Return the path of a module's source; None for one of the interpreter."""
    name = module.__file__
    return name[:-1] if name and name.endswith((".pyc", ".pyo")) else name


def gen_task_name(app: Celeriac, name: str, module_name: str) -> str:
    """Return the name that an app gives to the task of a function."""
    return app.gen_task_name(name, module_name)


def load_extension_class_names(namespace: str) -> Iterator[tuple[str, str]]:
    """Yield name and object path of the entry points of a group."""
    for one in entry_points(group=namespace):
        yield one.name, one.value


def load_extension_classes(namespace: str) -> Iterator[tuple[str, Any]]:  # Any: classes
    """Yield name and object of the entry points of a group; one that cannot be imported is warned of."""
    for name, path in load_extension_class_names(namespace):
        try:
            found = symbol_by_name(path)
        except (ImportError, SyntaxError) as exc:
            warnings.warn(
                f"the entry point {name} of {namespace}, {path}, cannot be loaded: {exc}", stacklevel=2
            )
        else:
            yield name, found
