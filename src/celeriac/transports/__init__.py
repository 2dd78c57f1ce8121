"""Brokers, by the scheme of their URL; a driver is imported when its scheme is first asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any, cast

from celeriac.errors import ConfigError
from celeriac.net.url import mask, parse
from celeriac.ports import Transport, TransportFactory

__all__ = ["BUILT_IN", "connect"]

ENTRY_POINTS = "celeriac.transports"

_AMQP = "celeriac.transports.amqp:AmqpTransport"
_REDIS = "celeriac.transports.redis:RedisTransport"

BUILT_IN: dict[str, str] = {
    "amqp": _AMQP,
    "amqps": _AMQP,
    "librabbitmq": _AMQP,
    "memory": "celeriac.transports.memory:MemoryTransport",
    "pyamqp": _AMQP,
    "redis": _REDIS,
    "redis+socket": _REDIS,
    "rediss": _REDIS,
    "sqlite": "celeriac.transports.sqlite:SqliteTransport",
    "unix": _REDIS,
}


def connect(
    url: str,
    options: Mapping[str, Any] | None = None,  # Any: each transport's own options
    *,
    app_name: str | None = None,
) -> Transport:
    """Return the transport for a broker URL; cheap, no I/O.

    Args:
        url: Such as ``redis://localhost/0``, ``sqlite://`` or a bare scheme.
        options: ``broker_transport_options``.
        app_name: The app's name, after which the embedded broker names its file. Transports find it in
            their options as ``app_name``.

    Raises:
        ConfigError: No transport has that scheme, or it cannot be loaded.
    """
    scheme = parse(url).scheme
    factory = _factory(scheme, url)
    return factory(url, {"app_name": app_name, **(options or {})})


def _factory(scheme: str, url: str) -> TransportFactory:
    dotted = BUILT_IN.get(scheme)
    if dotted is not None:
        module, _, name = dotted.partition(":")
        return cast("TransportFactory", getattr(importlib.import_module(module), name))
    for entry in _entry_points(group=ENTRY_POINTS, name=scheme):
        return cast("TransportFactory", entry.load())
    known = sorted({*BUILT_IN, *(entry.name for entry in _entry_points(group=ENTRY_POINTS))})
    close = difflib.get_close_matches(scheme, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known ones: {', '.join(known)}."
    raise ConfigError(f"broker_url {mask(url)!r}: there is no transport for {scheme!r}; {hint}")


def _entry_points(**which: str) -> Any:  # Any: EntryPoints, whose module is imported here only
    # It takes a fifth of the time of a client's start to import, and only names of other packages need it.
    return importlib.import_module("importlib.metadata").entry_points(**which)
