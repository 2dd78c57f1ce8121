"""Result stores, by the scheme of their URL; each is loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import msgspec

from celeriac import drivers
from celeriac.backends.spec import BackendSpec, options_from
from celeriac.errors import ConfigError
from celeriac.net.url import mask
from celeriac.ports import ResultBackend

__all__ = ["BackendFactory", "BackendSpec", "connect", "options_from"]

BackendFactory = Callable[[BackendSpec], ResultBackend]

ENTRY_POINTS = "celeriac.backends"
CELERY_ENTRY_POINTS = "celery.result_backends"  # of packages for Celery; the drop-in has what they subclass

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
    "sentinel": _REDIS,
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
    factory = _factory(scheme, spec)
    made: ResultBackend = getattr(factory, "from_spec", factory)(spec)  # classes in Celery's style have that
    return made


def _factory(scheme: str, spec: BackendSpec) -> BackendFactory:
    known = {name.lower(): dotted for name, dotted in (BUILT_IN | spec.aliases).items()}
    names = dict.fromkeys((scheme.lower(), scheme.lower().partition("+")[0]))
    try:
        for name in names:
            for group in (ENTRY_POINTS, CELERY_ENTRY_POINTS):
                if (found := drivers.find(name, known, group)) is not None:
                    return cast("BackendFactory", found)
        if ":" in scheme or "." in scheme:
            return cast("BackendFactory", drivers.load(scheme))
    except (ImportError, AttributeError) as exc:
        raise ConfigError(
            f"result_backend {mask(spec.url)!r} cannot be loaded: {exc}. Mend the name, or install the "
            "package that has it."
        ) from exc
    hint = drivers.hint(scheme.lower(), known, ENTRY_POINTS)
    raise ConfigError(
        f"result_backend {mask(spec.url)!r}: there is no result backend named {scheme!r}; {hint}"
    )
