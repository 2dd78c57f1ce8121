"""Result stores, by the scheme of their URL; each is loaded when it is first asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any, cast

import msgspec

from celeriac.backends.spec import BackendSpec, options_from
from celeriac.errors import ConfigError
from celeriac.net.url import mask
from celeriac.ports import ResultBackend

__all__ = ["BackendFactory", "BackendSpec", "connect", "options_from"]

BackendFactory = Callable[[BackendSpec], ResultBackend]

ENTRY_POINTS = "celeriac.backends"

_MEMCACHED = "celeriac.backends.memcached:MemcachedBackend"
_MEMORY = "celeriac.backends.memory:MemoryBackend"
_REDIS = "celeriac.backends.redis:RedisBackend"
_DATABASE = "celeriac.backends.sql:SqlBackend"
_FILES = "celeriac.backends.filesystem:FilesystemBackend"

# By scheme; of "db+sqlite" and the like the part before the plus is enough. Celery's names and our own.
BUILT_IN: dict[str, str] = {
    "cache+memcache": _MEMCACHED,
    "cache+memcached": _MEMCACHED,
    "cache+memory": _MEMORY,
    "cache+pylibmc": _MEMCACHED,
    "cache+pymemcache": _MEMCACHED,
    "database": _DATABASE,
    "db": _DATABASE,
    "file": _FILES,
    "filesystem": _FILES,
    "memory": _MEMORY,
    "redis": _REDIS,
    "rediss": _REDIS,
    "rpc": "celeriac.backends.rpc:RpcBackend",
    "sqlite": "celeriac.backends.sqlite:SqliteBackend",
    "unix": _REDIS,
}
DISABLED = frozenset({"", "disabled"})


def connect(spec: BackendSpec) -> ResultBackend | None:
    """Return the backend at a URL, or None when results are disabled; cheap, no I/O.

    Args:
        spec: Its ``url`` is a URL, the bare name of a backend, or ``package.module:Class`` with or without
            ``://…`` behind it; such a class is called with the spec.

    Raises:
        ConfigError: No backend has that name, or what it needs is not installed.
    """
    if spec.url.strip() == "cache":  # the rest stands in a setting of its own
        spec = msgspec.structs.replace(spec, url=f"cache+{spec.options.get('cache_backend') or ''}")
    scheme = spec.url.strip().partition("://")[0]
    if scheme.lower() in DISABLED:
        return None
    return _factory(scheme, spec)(spec)


def _factory(scheme: str, spec: BackendSpec) -> BackendFactory:
    for name in dict.fromkeys((scheme, scheme.partition("+")[0])):
        dotted = spec.aliases.get(name) or BUILT_IN.get(name.lower())
        if dotted is not None:
            return _load(dotted, spec)
        for entry in _entry_points(group=ENTRY_POINTS, name=name.lower()):
            return cast("BackendFactory", entry.load())
    if ":" in name or "." in name:
        return _load(name, spec)
    known = sorted({*BUILT_IN, *spec.aliases, *(e.name for e in _entry_points(group=ENTRY_POINTS))})
    close = difflib.get_close_matches(scheme.lower(), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known ones: {', '.join(known)}."
    raise ConfigError(
        f"result_backend {mask(spec.url)!r}: there is no result backend named {scheme!r}; {hint}"
    )


def _load(dotted: str, spec: BackendSpec) -> BackendFactory:
    """Import ``module:attribute`` (or ``module.attribute``)."""
    module_name, colon, attribute = dotted.partition(":")
    if not colon:
        module_name, _, attribute = dotted.rpartition(".")
    try:
        found: Any = getattr(importlib.import_module(module_name), attribute)  # Any: whatever it names
    except (ImportError, AttributeError) as exc:
        raise ConfigError(
            f"result_backend {mask(spec.url)!r}: {dotted} cannot be loaded: {exc}. Mend the name, or install "
            "the package that has it."
        ) from exc
    return cast("BackendFactory", found)


def _entry_points(**which: str) -> Any:  # Any: EntryPoints, whose module is imported here only
    # It takes a fifth of the time of a client's start to import, and only names of other packages need it.
    return importlib.import_module("importlib.metadata").entry_points(**which)
