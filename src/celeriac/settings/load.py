"""Reads settings from where users keep them: objects, modules, dicts, and the names of these."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from celeriac.errors import ConfigError
from celeriac.settings.names import is_value
from celeriac.settings.table import BY_NAME, BY_OLD


class Attributes(Mapping[str, Any]):
    """The public attributes of an object, as a mapping that is read when asked.

    Nothing is read ahead: some settings objects raise for attributes that nobody here wants to know.

    Args:
        target: A module, class or instance.
    """

    def __init__(self, target: object) -> None:
        self._target = target

    def __getitem__(self, key: str) -> Any:  # Any: a user's value
        """Return an attribute.

        Raises:
            KeyError: There is none of that name.
        """
        try:
            return getattr(self._target, key)
        except AttributeError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        """Yield the public names."""
        return (name for name in dir(self._target) if not name.startswith("_"))

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(1 for _ in self)


def read_source(source: object) -> Mapping[str, Any]:  # Any: users' values
    """Return the settings in a module, class, instance or mapping, or in what a name stands for.

    Args:
        source: The thing itself, ``"package.module"``, ``"package.module:attribute"`` or
            ``"package.module.attribute"``.

    Raises:
        ImportError: Nothing can be imported by that name.
        ConfigError: The name is a file name, or the module has no such attribute.
    """
    if isinstance(source, str):
        source = import_by_name(source)
    return source if isinstance(source, Mapping) else Attributes(source)


def import_by_name(name: str) -> Any:  # Any: whatever bears the name
    """Import what a name stands for; the working directory counts as a place to import from.

    Raises:
        ImportError: Nothing can be imported by that name.
        ConfigError: The name is a file name, or the module has no such attribute.
    """
    module_name, colon, attribute = name.partition(":")
    with _working_directory_importable():
        try:
            target = importlib.import_module(module_name)
        except ModuleNotFoundError as exc:
            if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
                raise  # the module is there, but something that it imports is not
            if module_name.endswith(".py"):
                raise ConfigError(
                    f"{module_name!r} is the name of a file; name the module instead: {module_name[:-3]!r}."
                ) from exc
            parent, _, last = module_name.rpartition(".")
            if colon or not parent or exc.name == parent:
                raise
            target, attribute = importlib.import_module(parent), last
            if not hasattr(target, last):
                raise
    for part in attribute.split(".") if attribute else ():
        try:
            target = getattr(target, part)
        except AttributeError as exc:
            raise ConfigError(f"Module {module_name!r} has no attribute {attribute!r}.") from exc
    return target


def from_envvar(variable: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the module name that an environment variable holds.

    Raises:
        ConfigError: The variable is not set or empty.
    """
    name = (os.environ if environ is None else environ).get(variable)
    if not name:
        raise ConfigError(
            f"The environment variable {variable!r} is not set, so the settings cannot be loaded. "
            "Set it to the name of a module that can be imported."
        )
    return name


def check_style(source: Mapping[Any, Any]) -> None:  # Any: users' keys and values
    """Refuse a source that mixes the lower-case names of settings with the old upper-case ones.

    The style with more names is taken for the intended one. A setting that is given in both styles is no
    mistake: that is how one file serves two versions.

    Raises:
        ConfigError: Names are mixed; lists what to rename.
    """
    new = {key for key in source if key in BY_NAME and is_value(source.get(key))}
    old = {key for key in source if key in BY_OLD and is_value(source.get(key))}
    if not new or not old:
        return
    if len(new) >= len(old):
        wrong = {key: BY_OLD[key].name for key in old if BY_OLD[key].name not in new}
        intended, other = "new", "old"
    else:
        wrong = {key: BY_NAME[key].old for key in new if BY_NAME[key].old not in old}
        intended, other = "old", "new"
    if wrong:
        listed = "\n".join(f"  {key:<36} -> {wrong[key]}" for key in sorted(wrong))
        hint = (
            ""
            if intended == "new"
            else "\n\nOr use the new names everywhere (`celery upgrade settings FILE`)."
        )
        raise ConfigError(
            "Cannot mix new setting names with old setting names in one place. "
            f"Most names here are {intended}, so rename the {other} ones:\n\n{listed}{hint}"
        )


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    here = os.getcwd()
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:  # the imported module may have tidied up itself
            sys.path.remove(here)
