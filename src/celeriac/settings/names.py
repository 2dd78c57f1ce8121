"""The many names of a setting: new, old, and with a project's prefix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Final

from celeriac.settings.spelling import Speller
from celeriac.settings.table import BY_NAME, BY_OLD

_DJANGO_TIME_ZONE: Final = "TIME_ZONE"
_NEW: Final = Speller(BY_NAME)
_OLD: Final = Speller(BY_OLD)
# How well a key of a source fits a setting; the best one counts when a source has several.
_BY_PREFIX, _BY_NEW_NAME, _BY_OLD_NAME, _BY_OTHER_NAME = range(4)


class Names:
    """Finds the settings that keys stand for.

    Args:
        namespace: Prefix of the keys, such as ``CELERY``; its case decides that of the keys.
    """

    def __init__(self, namespace: str | None = None) -> None:
        self.prefix: str = f"{namespace.removesuffix('_')}_" if namespace else ""
        self._upper = self.prefix.isupper()

    def find(self, key: str) -> str | None:
        """Return the new name of the setting that a key stands for."""
        if self.prefix and key.startswith(self.prefix):
            rest = self._without_prefix(key)
            if rest in BY_NAME:
                return rest
        if key in BY_NAME:
            return key
        setting = BY_OLD.get(key)
        return None if setting is None else setting.name

    def settings_in(self, source: Mapping[Any, Any]) -> Iterator[tuple[str, str, Any]]:  # Any: users' values
        """Yield new name, key and value of every setting in a source; of several names the best one."""
        best: dict[str, tuple[int, str]] = {}
        for key in source:
            if not isinstance(key, str):
                continue
            name = "timezone" if key == _DJANGO_TIME_ZONE else self.find(key)
            if name is not None:
                rank = self._rank(key, name)
                best[name] = min(best.get(name, (rank, key)), (rank, key))
        for name, (_, key) in best.items():
            value = source.get(key)
            if is_value(value) and (value is not None or key in source):
                yield name, key, value

    def prefixed_in(self, source: Mapping[Any, Any]) -> Iterator[str]:  # Any: users' keys and values
        """Yield the new name of every setting that a source has under its prefixed name."""
        if self.prefix:
            for name, key, _ in self.settings_in(source):
                if self._rank(key, name) == _BY_PREFIX:
                    yield name

    def misspelt(self, key: str) -> str | None:
        """Return the name that was probably meant by a key that stands for no setting."""
        if not self.prefix:
            return meant(key)
        if not key.startswith(self.prefix):
            return None  # a source with a namespace is shared: only what bears the prefix is meant for us
        name = _NEW.closest(self._without_prefix(key))
        if name is None:
            return _OLD.closest(key) if self._upper else None
        return self.prefix + (name.upper() if self._upper else name)

    def _rank(self, key: str, name: str) -> int:
        if key == _DJANGO_TIME_ZONE:
            return _BY_OTHER_NAME
        if key == name:
            return _BY_NEW_NAME
        if self.prefix and key.startswith(self.prefix) and self._without_prefix(key) == name:
            return _BY_PREFIX
        return _BY_OLD_NAME

    def _without_prefix(self, key: str) -> str:
        rest = key[len(self.prefix) :]
        return rest.lower() if self._upper and rest.isupper() else rest


def meant(key: str) -> str | None:
    """Return the new or old name, by the key's case, that a key without prefix is a misspelling of."""
    return (_OLD if key.isupper() else _NEW).closest(key)


def is_value(value: object) -> bool:
    """Tell whether a source's value can be a setting: a module that it imports (`timezone`, say) is none."""
    return not isinstance(value, ModuleType)
