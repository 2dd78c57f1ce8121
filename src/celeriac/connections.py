"""The broker and the result store that an app's settings name."""

from __future__ import annotations

import datetime
from typing import Any
from urllib.parse import quote

from celeriac import backends, transports
from celeriac.bursts import Bursts
from celeriac.codecs.registry import Codecs
from celeriac.errors import ConfigError
from celeriac.locks import Locks
from celeriac.net.url import mask, parse
from celeriac.permits import Permits
from celeriac.ports import ResultBackend, Transport
from celeriac.settings.settings import Settings

_KEEPERS = (
    "permits and locks are kept by redis:// (also rediss, sentinel, unix) and, on one machine, by "
    "sqlite:///file."
)
_UNIQUE = "tasks with unique, debounce or throttle"
_KEEPING_STORES = frozenset({"redis", "rediss", "sentinel", "unix", "sqlite"})
EMBEDDED = (
    "sqlite://"  # where there is no broker: a file under the user's state directory, named after the app
)


def broker_url(conf: Settings, *, write: bool) -> str:
    """Return the broker's URL (several are joined by ``;``, for failover).

    Args:
        conf: The app's settings.
        write: Whether it is for producers; ``broker_write_url`` and ``broker_read_url`` may differ.
    """
    url = conf.broker_write_url if write else conf.broker_read_url
    if isinstance(url, (list, tuple)):
        return ";".join(url)
    return url or _from_parts(conf) or EMBEDDED


def is_embedded(conf: Settings) -> bool:
    """Return whether tasks are queued in an SQLite file rather than on a server."""
    return parse(broker_url(conf, write=True).partition(";")[0]).scheme == "sqlite"


def connect_broker(conf: Settings, *, app_name: str | None, write: bool = True) -> Transport:
    """Return the transport to the broker; no I/O.

    Raises:
        ConfigError: There is no transport of that scheme, or what it needs is not installed.
    """
    options: dict[str, Any] = {  # Any: each transport's own options
        "connect_timeout": conf.broker_connection_timeout,
        "heartbeat": conf.broker_heartbeat,
        "login_method": conf.broker_login_method,
        "ssl": conf.broker_use_ssl or None,
        "max_connections": conf.broker_pool_limit,
        "failover_strategy": conf.broker_failover_strategy,
        "high_priority_first": conf.task_priority_high_first or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    return transports.connect(
        broker_url(conf, write=write), {**given, **conf.broker_transport_options}, app_name=app_name
    )


def connect_backend(
    conf: Settings, codecs: Codecs, transport: Transport, *, app_name: str | None, app: Any = None
) -> ResultBackend | None:
    """Return the result store, or None when results are not kept; no I/O.

    With the embedded broker and nothing said, results are kept beside the queue.

    Raises:
        ConfigError: There is no such result store, or what it needs is not installed.
    """
    url = conf.result_backend
    if url is None and is_embedded(conf):
        url = "sqlite"
    if not url:
        return None
    names = conf.result_accept_content if conf.result_accept_content is not None else conf.accept_content
    spec = backends.BackendSpec(
        url=url if isinstance(url, str) else "",
        codecs=codecs,
        serializer=conf.result_serializer,
        accept=codecs.accept_set(names),
        compression=conf.result_compression,
        expires_seconds=_seconds(conf.result_expires),
        options=backends.options_from(conf),
        extended=bool(conf.result_extended),
        transport=transport,
        app_name=app_name,
        app=app,
        aliases=dict(conf.override_backends or {}),
    )
    if isinstance(url, str):
        return backends.connect(spec)
    made: ResultBackend = getattr(url, "from_spec", url)(spec)  # a class or function of the user's own
    return made


def connect_permits(conf: Settings, transport: Transport, *, app_name: str | None) -> Permits:
    """Return what keeps the permits of limited tasks; no I/O.

    That is the server that ``task_limits_url`` names, else the broker, and where that is RabbitMQ the result
    store, if it is one of ours that could be a broker.

    Raises:
        ConfigError: None of them keeps permits.
    """
    what = "tasks that are limited in all workers together"
    return _keeper(conf, transport, what, app_name=app_name).permits()


def connect_locks(conf: Settings, transport: Transport, *, app_name: str | None) -> Locks:
    """Return what keeps the locks of unique tasks, the same that would keep permits; no I/O.

    Raises:
        ConfigError: There is none.
    """
    return _keeper(conf, transport, _UNIQUE, app_name=app_name).locks()


def connect_bursts(conf: Settings, transport: Transport, *, app_name: str | None) -> Bursts:
    """Return what keeps the bursts of debounced tasks, the same that would keep permits; no I/O.

    Raises:
        ConfigError: There is none.
    """
    return _keeper(conf, transport, _UNIQUE, app_name=app_name).bursts()


def _keeper(conf: Settings, transport: Transport, what: str, *, app_name: str | None) -> Transport:
    if conf.task_limits_url:
        named = transports.connect(conf.task_limits_url, app_name=app_name)
        if named.caps.permits:
            return named
        raise ConfigError(f"task_limits_url {mask(conf.task_limits_url)!r}: {_KEEPERS}")
    if transport.caps.permits:
        return transport
    results = conf.result_backend
    if isinstance(results, str) and parse(results).scheme in _KEEPING_STORES:
        return transports.connect(results, {}, app_name=app_name)
    raise ConfigError(
        f"There are {what}, and neither the broker at {transport.address} nor the result store can count or "
        f"lock. Set task_limits_url: {_KEEPERS}"
    )


def _seconds(value: float | datetime.timedelta | None) -> float | None:
    """Return seconds of a number or a timedelta."""
    return value.total_seconds() if isinstance(value, datetime.timedelta) else value


def _from_parts(conf: Settings) -> str | None:
    """Return a URL made of the settings that came before ``broker_url``, or None when there are none."""
    if not (conf.broker_transport or conf.broker_host):
        return None
    user = quote(conf.broker_user or "", safe="")
    password = f":{quote(conf.broker_password, safe='')}" if conf.broker_password else ""
    login = f"{user}{password}@" if user or password else ""
    port = f":{conf.broker_port}" if conf.broker_port else ""
    vhost = quote(conf.broker_vhost or "", safe="")
    return f"{conf.broker_transport or 'amqp'}://{login}{conf.broker_host or 'localhost'}{port}/{vhost}"
