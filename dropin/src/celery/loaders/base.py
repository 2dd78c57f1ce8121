"""The root of loaders."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from celery.utils.imports import import_from_cwd

__all__ = ("BaseLoader",)


class BaseLoader:
    """Imports an app's modules; the app reads its settings itself.

    Args:
        app: The app; a Celeriac.
    """

    builtin_modules: frozenset[str] = frozenset()

    def __init__(self, app: Any, **kwargs: Any) -> None:
        self.app = app
        self.task_modules: set[str] = set()
        self.override_backends: dict[str, str] = {}

    def now(self, utc: bool = True) -> Any:
        """Return the time, of the app's clock."""
        return self.app.now()

    def import_task_module(self, module: str) -> ModuleType:
        """Import a module, and note that it has tasks."""
        self.task_modules.add(module)
        return self.import_from_cwd(module)

    def import_module(self, module: str, package: str | None = None) -> ModuleType:
        """Import a module."""
        return importlib.import_module(module, package=package)

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> ModuleType:
        """Import a module, which may lie in the working directory."""
        found: ModuleType = import_from_cwd(module, self.import_module if imp is None else imp, package)
        return found

    def import_default_modules(self) -> list[Any]:
        """Import the modules that a worker would.

        Raises:
            ImportError: One of them cannot be imported.
        """
        modules: list[Any] = self.app.import_modules()
        return modules

    @property
    def default_modules(self) -> tuple[str, ...]:
        """The names of these modules."""
        conf = self.app.conf
        return (*self.builtin_modules, *_names(conf.imports), *_names(conf.include))

    @property
    def conf(self) -> Any:
        """The app's settings."""
        return self.app.conf

    def autodiscover_tasks(self, packages: Iterable[str], related_name: str = "tasks") -> None:
        """Import the ``tasks`` module of each package that has one."""
        self.app.autodiscover_tasks(list(packages), related_name, force=True)


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [*(value or ())]
