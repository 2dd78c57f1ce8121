"""The settings of one app: layers of values under new and old names, read when first needed."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from celeriac.errors import ConfigError
from celeriac.forklock import ForkLock
from celeriac.settings.inventory import Inventory
from celeriac.settings.load import check_style
from celeriac.settings.model import SECTIONS, Setting
from celeriac.settings.names import Names, meant
from celeriac.settings.table import BY_NAME, SETTINGS

logger: logging.Logger = logging.getLogger("celeriac.settings")

Origin = Literal["environment", "code", "added", "source", "default"]  # where a value comes from

_Layer = Mapping[Any, Any]  # Any: users' keys and values
_ENVIRONMENT: Final = {
    "broker_url": "CELERY_BROKER_URL",
    "broker_read_url": "CELERY_BROKER_READ_URL",
    "broker_write_url": "CELERY_BROKER_WRITE_URL",
    "result_backend": "CELERY_RESULT_BACKEND",
}


class _BelowEnvironment:
    """A setting that a variable of the environment goes before, when it is read.

    Args:
        name: The setting.
        other: The setting that counts where neither of them says anything.
    """

    def __init__(self, name: str, other: str | None = None) -> None:
        self._name = name
        self._variable = _ENVIRONMENT[name]
        self._other = other

    def __get__(self, conf: Settings | None, owner: type[Settings]) -> Any:  # Any: a setting's value
        if conf is None:
            return self
        found = conf._environ.get(self._variable) or conf._value(self._name)
        return getattr(conf, self._other) if not found and self._other is not None else found

    def __set__(self, conf: Settings, value: Any) -> None:  # Any: a setting's value
        conf[self._name] = value


class Settings(Inventory):
    """The settings of one app, by attribute and by item, under their new, old and prefixed names.

    Values come from four layers, the first that has one wins: changes (made directly, or given to the app's
    constructor), added defaults (the latest first), the source (a module, object or dict), and the defaults
    of `celeriac.settings.table`. With a namespace, keys that have its prefix go before what was changed
    until the first read: a project's settings before what its code gave to the app. The environment
    variables ``CELERY_BROKER_URL``, ``CELERY_BROKER_READ_URL``, ``CELERY_BROKER_WRITE_URL`` and
    ``CELERY_RESULT_BACKEND`` stand above all of them.

    Nothing is read or checked before the first read of a value. After it, reading a setting by its new name
    is a plain attribute look-up: the resolved values lie in the instance's ``__dict__``. Keys that are no
    settings are kept and can be read back.

    Safe for threads.

    Args:
        changes: Values of the highest layer.
        strict: Whether a value of the wrong kind or a misspelt name is an error; else it is logged.
        environ: The environment variables; those of the process when not given.
    """

    __slots__ = (
        "__dict__",
        "_added",
        "_base",
        "_changes",
        "_configured",
        "_environ",
        "_late",
        "_lock",
        "_names",
        "_observers",
        "_pending",
        "_reading",
        "_source",
        "_warned",
        "generation",
        "strict",
    )

    generation: int  # grows with every change, so that what was made from settings can be made anew
    strict: bool
    _added: list[_Layer | Callable[[], _Layer]]  # the strongest first
    _base: dict[str, Any]  # Any: this instance's copies of the defaults
    _changes: dict[str, Any]  # Any: users' values
    _configured: bool
    _environ: Mapping[str, str]
    _late: set[str]  # what was changed after the first read
    _lock: ForkLock
    _names: Names
    _observers: list[Callable[[str, Any], None]]  # Any: a setting's value
    _pending: list[tuple[Callable[[], None], Callable[[], None] | None]]
    _reading: bool
    _source: _Layer
    _warned: set[str]

    def __init__(
        self,
        changes: _Layer | None = None,
        *,
        strict: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        internal: dict[str, Any] = {  # Any: one value per slot
            "_added": [],
            "_base": {},
            "_changes": dict(changes or {}),
            "_configured": False,
            "_environ": os.environ if environ is None else environ,
            "_late": set(),
            "_lock": ForkLock(),
            "_names": Names(),
            "_observers": [],
            "_pending": [],
            "_reading": False,
            "_source": MappingProxyType({}),
            "_warned": set(),
            "generation": 0,
            "strict": strict,
        }
        for name, value in internal.items():
            object.__setattr__(self, name, value)

    # --- where values come from ---------------------------------------------------------------------

    def pending(self, read: Callable[[], None], then: Callable[[], None] | None = None) -> None:
        """Have a function called at the first read, to bring in the source (with `use`).

        While it runs, reads see what is known so far. When it raises, the settings stay unread and the
        next read calls it again.

        Args:
            read: Brings in the source and may set values.
            then: Called when the values are resolved.
        """
        self._pending.append((read, then))
        if self._configured:
            object.__setattr__(self, "_configured", False)
            self.__dict__.clear()

    def use(self, source: _Layer, namespace: str | None = None) -> None:
        """Take a mapping as the source, in place of the one before.

        Args:
            source: See `celeriac.settings.load.read_source`.
            namespace: Prefix of the keys, such as ``CELERY``; its case decides that of the keys.

        Raises:
            ConfigError: The source mixes new and old names (never with a namespace).
        """
        if not namespace:
            check_style(source)
        object.__setattr__(self, "_source", source)
        object.__setattr__(self, "_names", Names(namespace))
        self._changed()

    def add_defaults(self, source: _Layer | Callable[[], _Layer]) -> None:
        """Put a mapping above the source and below direct changes; a callable is called at the first read."""
        self._added.insert(0, source() if self._configured and callable(source) else source)
        self._changed()

    def refresh(self) -> None:
        """Read the source again: for sources that change by themselves, as Django's settings do in tests."""
        self._changed()

    def _changed(self) -> None:
        object.__setattr__(self, "generation", self.generation + 1)
        if self._configured:
            with self._lock:
                self._build()

    def _resolve(self) -> None:
        with self._lock:  # another thread's first read waits here until ours is done
            if self._configured or self._reading:
                return
            object.__setattr__(self, "_reading", True)
            try:
                for read, _ in self._pending:
                    read()
                self._added[:] = [layer() if callable(layer) else layer for layer in self._added]
                self._build()
                afterwards = [then for _, then in self._pending if then is not None]
                self._pending.clear()
                object.__setattr__(self, "_configured", True)
            finally:
                object.__setattr__(self, "_reading", False)
            for then in afterwards:
                then()

    def _build(self) -> None:
        if not self._base:
            self._base.update((s.name, copy.copy(s.default)) for s in SETTINGS)
        values = dict(self._base)
        prefixed: dict[str, Any] = {}  # Any: users' values
        for layer in [self._source, *reversed(self._evaluated())]:
            self._report_misspelt(layer)
            values.update(self._settings_in(layer))
            prefixed.update((name, values[name]) for name in self._names.prefixed_in(layer))
        self._report_misspelt(self._changes)
        changes: dict[str, Any] = {}  # Any: users' values
        for key, value in self._changes.items():
            name = self._names.find(key) or key
            changes[name] = self._check(name, value, key)
        self._changes.clear()
        self._changes.update(changes)
        values.update(changes)
        # As in Celery a project's `CELERY_BROKER_URL` goes before what its code gave to the app.
        values.update((name, value) for name, value in prefixed.items() if name not in self._late)
        self.__dict__.update((name, values[name]) for name in BY_NAME)

    # --- checking ---------------------------------------------------------------------------------------

    def _settings_in(self, layer: _Layer) -> dict[str, Any]:  # Any: users' values
        """Return a layer's settings under their new names, checked."""
        return {name: self._check(name, value, key) for name, key, value in self._names.settings_in(layer)}

    def _check(self, name: str, value: Any, said: str | None = None) -> Any:  # Any: a user's value
        setting = BY_NAME.get(name)
        if setting is None:
            return value
        try:
            return setting.check(value, said)
        except ConfigError as exc:
            self._complain(str(exc))
            return value

    def _report_misspelt(self, keys: Iterable[Any]) -> None:  # Any: a dict may have keys of any kind
        for key in keys:
            if isinstance(key, str) and not key.startswith("_") and self._names.find(key) is None:
                meant_name = self._names.misspelt(key)
                if meant_name is not None and meant_name != key:
                    self._complain(f"There is no setting {key!r}; did you mean {meant_name!r}?")

    def _complain(self, text: str) -> None:
        if self.strict:
            raise ConfigError(text)
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("%s", text)

    # --- reading ----------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:  # Any: a setting's value
        # Reached only when `__dict__` has no such name: before the first read, for old names and for keys
        # that are no settings.
        if name.startswith("__"):
            raise AttributeError(name)  # Python looking for its protocols is not a read
        try:
            return self[name]
        except KeyError:
            near = meant(name)
            hint = f"; did you mean {near!r}?" if near else ""
            raise AttributeError(f"There is no setting {name!r}{hint}") from None

    def __getitem__(self, key: str) -> Any:  # Any: a setting's value
        """Return a setting by any of its names, or whatever else was set under that key.

        Raises:
            KeyError: Nothing was set under that key.
            ConfigError: This was the first read and the settings are wrong.
        """
        if not self._configured:
            self._resolve()
        name = self._names.find(key)
        if name is None:
            return self._unknown(key)
        if name in _ENVIRONMENT:
            return getattr(self, name)
        return self._value(name)

    def _value(self, name: str) -> Any:  # Any: a setting's value
        if not self._configured:
            self._resolve()
        if not self._configured:  # this thread is in the middle of reading
            return self._so_far(name)
        return self.__dict__[name]

    def _so_far(self, name: str) -> Any:  # Any: a setting's value
        for key, value in self._changes.items():
            if self._names.find(key) == name:
                return value
        for layer in [*self._evaluated(), self._source]:
            found = self._settings_in(layer)
            if name in found:
                return found[name]
        return copy.copy(BY_NAME[name].default)

    def _unknown(self, key: str) -> Any:  # Any: a user's value
        for layer in self.maps:
            for candidate in (self._names.prefix + key, key) if self._names.prefix else (key,):
                if candidate in layer:
                    return layer[candidate]
        raise KeyError(key)

    broker_url: _BelowEnvironment = _BelowEnvironment("broker_url")
    broker_read_url: _BelowEnvironment = _BelowEnvironment("broker_read_url", "broker_url")
    broker_write_url: _BelowEnvironment = _BelowEnvironment("broker_write_url", "broker_url")
    result_backend: _BelowEnvironment = _BelowEnvironment("result_backend")

    @property
    def configured(self) -> bool:
        """Whether the source was read."""
        return self._configured

    @property
    def namespace(self) -> str | None:
        """The prefix of the source's keys, without its underscore."""
        return self._names.prefix.removesuffix("_") or None

    def first(self, *keys: str) -> Any:  # Any: a setting's value
        """Return the value of the first of the keys that has one that is not None."""
        return next((value for value in map(self.get, keys) if value is not None), None)

    def get_by_parts(self, *parts: str) -> Any:  # Any: a setting's value
        """Return the setting whose name is the parts joined by underscores."""
        return self["_".join(part for part in parts if part)]

    def find_option(self, name: str, namespace: str = "") -> tuple[str, str, Setting]:
        """Return section, rest of the name and declaration of a setting that is named without its section.

        Args:
            name: Such as ``extended`` or ``result_extended``.
            namespace: The section that is looked at first.

        Raises:
            KeyError: No section has such a setting.
        """
        for section in (namespace, "", *SECTIONS):
            setting = BY_NAME.get(f"{section}_{name}" if section else name)
            if setting is not None:
                head = setting.section
                return head, setting.name[len(head) + 1 :] if head else setting.name, setting
        raise KeyError(name)

    def find_value_for_key(self, name: str, namespace: str = "celery") -> Any:  # Any: a setting's value
        """Return the value of a setting that is named without its section (see `find_option`)."""
        return self[self.find_option(name, namespace)[2].name]

    def value_set_for(self, key: str) -> bool:
        """Tell whether anybody has set it, rather than it having its default."""
        return (self._names.find(key) or key) in self.without_defaults()

    def origin(self, name: str) -> tuple[Origin, str]:
        """Return the layer that a setting's value comes from, and under which name it was set there.

        Args:
            name: The setting's new name.
        """
        self.finalize()
        variable = _ENVIRONMENT.get(name)
        if variable is not None and self._environ.get(variable):
            return "environment", variable
        layers: list[tuple[Origin, _Layer]] = [("source", self._source)]
        layers += [("added", layer) for layer in reversed(self._evaluated())]
        found: tuple[Origin, str] = "default", ""
        prefixed: tuple[Origin, str] | None = None
        for origin, layer in layers:
            for other, key, _ in self._names.settings_in(layer):
                if other == name:
                    found = origin, key
                    prefixed = found if name in self._names.prefixed_in(layer) else prefixed
        if prefixed is not None and name not in self._late:
            return prefixed
        return ("code", name) if name in self._changes else found

    # --- changing ----------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:  # Any: a setting's value
        if name == "strict":
            object.__setattr__(self, name, value)
        else:
            self[name] = value

    def __setitem__(self, key: str, value: Any) -> None:  # Any: a setting's value
        """Set a value in the highest layer; before the first read it is only noted.

        Raises:
            ConfigError: The value is of the wrong kind, or the key is a misspelt setting.
        """
        if self._configured:
            name = self._names.find(key)
            if name is None:
                self._report_misspelt([key])
                self._changes[key] = value
            else:
                self._late.add(name)
                self._changes[name] = self.__dict__[name] = self._check(name, value, key)
        else:
            self._changes[key] = value
        object.__setattr__(self, "generation", self.generation + 1)
        for observer in self._observers:
            observer(key, value)

    def __delitem__(self, key: str) -> None:
        """Take back a direct change, so that the layers below count again.

        Raises:
            KeyError: There was none.
        """
        name = self._names.find(key) or key
        del self._changes[name]
        self._late.discard(name)
        self._changed()

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None

    def setdefault(self, key: str, default: Any = None) -> Any:  # Any: a setting's value
        """Set a value where there is none; before the first read only direct changes count as one."""
        if self._configured:
            return super().setdefault(key, default)
        return self._changes.setdefault(key, default)

    def clear(self) -> None:
        """Take back all direct changes."""
        self._changes.clear()
        self._late.clear()
        self._changed()

    def bind_to(self, observer: Callable[[str, Any], None]) -> None:  # Any: a setting's value
        """Have a function called with key and value after every direct change."""
        self._observers.append(observer)

    # --- as a mapping ------------------------------------------------------------------------------------

    def __contains__(self, key: object) -> bool:
        """Tell whether there is a value under that key; this does not count as a read."""
        if not isinstance(key, str):
            return False
        return self._names.find(key) is not None or any(
            key in layer or bool(self._names.prefix and self._names.prefix + key in layer)
            for layer in self.maps
        )

    def __iter__(self) -> Iterator[str]:
        """Yield the new names of all settings, then the other keys that were set."""
        if not self._configured:
            self._resolve()
        yield from BY_NAME
        seen: set[str] = set()
        for layer in self.maps:
            for key in layer:
                if isinstance(key, str) and key not in seen and self._names.find(key) is None:
                    seen.add(key)
                    yield key

    def __len__(self) -> int:
        """Return how many keys there are."""
        return sum(1 for _ in self)

    @property
    def changes(self) -> dict[str, Any]:  # Any: users' values
        """The highest layer."""
        return self._changes

    @property
    def maps(self) -> list[_Layer]:
        """The layers above the built-in defaults, the strongest first."""
        return [self._changes, *self._evaluated(), self._source]

    @property
    def defaults(self) -> list[_Layer]:
        """The layers below the changes, the strongest first; the last are the built-in defaults."""
        return [*self._evaluated(), self._source, MappingProxyType(self._base)]

    def _evaluated(self) -> list[_Layer]:
        return [layer for layer in self._added if not callable(layer)]

    def finalize(self) -> None:
        """Read the settings now.

        Raises:
            ConfigError: They are wrong.
        """
        if not self._configured:
            self._resolve()
