"""Brokers, by the scheme of their URL; a driver is imported when its scheme is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from celeriac import drivers
from celeriac.errors import ConfigError
from celeriac.net import failover
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
    "sentinel": _REDIS,
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
        url: Such as ``redis://localhost/0``, ``sqlite://`` or a bare scheme; of several, joined by ``;`` for
            failover, the first one says which transport it is.
        options: ``broker_transport_options``; ``failover_strategy`` is `broker_failover_strategy`.
        app_name: The app's name, after which the embedded broker names its file. Transports find it in
            their options as ``app_name``.

    Raises:
        ConfigError: No transport has that scheme, or it cannot be loaded.
    """
    options = dict(options or {})
    url = failover.in_order(url, options.pop("failover_strategy", None))
    scheme = parse(url.partition(";")[0]).scheme
    found = drivers.find(scheme, BUILT_IN, ENTRY_POINTS)
    if found is None:
        raise ConfigError(
            f"broker_url {mask(url)!r}: there is no transport for {scheme!r}; "
            f"{drivers.hint(scheme, BUILT_IN, ENTRY_POINTS)}"
        )
    return cast("TransportFactory", found)(url, {"app_name": app_name, **options})
