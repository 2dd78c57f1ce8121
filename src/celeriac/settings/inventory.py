"""What was set: as a dict, as a table without secrets, as text."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from celeriac.settings.load import Attributes
from celeriac.settings.names import Names, is_value
from celeriac.settings.secrets import censor
from celeriac.settings.table import BY_NAME, BY_OLD

logger: logging.Logger = logging.getLogger("celeriac.settings")

# Leases belong to workers, which renew them: no message comes back because its task takes long.
_UNUSED: Final = "visibility_timeout"
_OPTIONS: Final = ("broker_transport_options", "result_backend_transport_options")


class Inventory(MutableMapping[str, Any]):
    """The part of the settings that tells what they are."""

    __slots__ = ()

    _configured: bool
    _names: Names
    _source: Mapping[Any, Any]  # Any: users' keys and values

    @property
    @abstractmethod
    def maps(self) -> list[Mapping[Any, Any]]:
        """The layers above the built-in defaults, the strongest first."""

    @abstractmethod
    def finalize(self) -> None:
        """Read the settings now."""

    def __repr__(self) -> str:
        """Show what was set, without secrets."""
        return f"<Settings {self.table()!r}>" if self._configured else "<Settings (not read yet)>"

    def without_defaults(self) -> dict[str, Any]:  # Any: users' values
        """Return everything that somebody has set: settings under their new names."""
        self.finalize()
        found: dict[str, Any] = {}
        for layer in reversed(self.maps):
            found.update((name, self[name]) for name, _, _ in self._names.settings_in(layer))
            for key in layer:
                if isinstance(key, str) and not key.startswith("_") and self._names.find(key) is None:
                    found[key] = layer[key]
        return found

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:  # Any: values
        """Return the settings as a dict that can be shown.

        What else is in a module or object that the settings were read from is left out: in a Django project
        that is everything.

        Args:
            with_defaults: Whether to list those that nobody has set.
            censored: Whether to hide secrets.
        """
        shown = dict(self) if with_defaults else self.without_defaults()
        deliberate = {key for layer in self.maps if not isinstance(layer, Attributes) for key in layer}
        return {
            key: censor(key, value) if censored else value
            for key, value in shown.items()
            if key in BY_NAME or (key in deliberate and not key.startswith("_") and is_value(value))
        }

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """Return the settings as text, one in a line."""
        return "\n".join(f"{key}: {value!r}" for key, value in self.table(with_defaults, censored).items())

    @property
    def deprecated_settings(self) -> set[str]:
        """The keys of the source that are old names; none where a namespace makes names of its own."""
        self.finalize()
        return set() if self._names.prefix else {key for key in self._source if key in BY_OLD}

    def maybe_warn_deprecated_settings(self) -> bool:
        """Log that the source uses old names, and return whether it does."""
        old = sorted(self.deprecated_settings)
        if old:
            logger.warning(
                "These settings have old names, rename them when convenient: %s",
                ", ".join(f"{key} -> {BY_OLD[key].name}" for key in old),
            )
        return bool(old)

    def without_effect(self) -> list[str]:
        """Return the names of the settings that somebody has set and that this version does not act upon."""
        given = self.without_defaults()
        idle = [name for name in given if name in BY_NAME and not BY_NAME[name].has_effect]
        idle += [f"{name}[{_UNUSED!r}]" for name in _OPTIONS if _UNUSED in (given.get(name) or {})]
        return sorted(idle)
