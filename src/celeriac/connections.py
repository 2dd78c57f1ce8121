"""The broker and the result store that an app's settings name."""

from __future__ import annotations

import datetime
import importlib
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from celeriac import backends, transports
from celeriac.bursts import Bursts
from celeriac.codecs.registry import Codecs
from celeriac.errors import ConfigError
from celeriac.locks import Locks
from celeriac.net.url import mask, parse
from celeriac.permits import Permits
from celeriac.ports import KeepsTimetable, ResultBackend, Transport
from celeriac.settings.settings import Settings
from celeriac.timetable import Timetable

_KEEPERS = (
    "permits and locks are kept by redis:// (also rediss, sentinel, unix) and, on one machine, by "
    "sqlite:///file."
)
_UNIQUE = "tasks with unique, debounce or throttle"
_KEEPING_STORES = frozenset({"redis", "rediss", "sentinel", "unix", "sqlite"})
_DATABASES = frozenset({"db", "database"})
DEFAULT_SCHEDULE_FILE: Final = "celerybeat-schedule"
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
    given["delay_queues"] = (
        conf.broker_native_delayed_delivery_queue_type if conf.worker_detect_quorum_queues else None
    )
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


def connect_timetable(
    conf: Settings,
    transport: Transport,
    result_store: Callable[[], ResultBackend | None],
    *,
    app_name: str | None,
    filename: str | None = None,
) -> Timetable:
    """Return what keeps the timetable of periodic tasks; no I/O, but for a file.

    That is what ``beat_store_url`` names; else the file, if one was named; else the broker; with RabbitMQ the
    result store, if that can; and where all of these are of no use a file in the working directory.

    Args:
        conf: The app's settings.
        transport: To the broker.
        result_store: Returns the result store.
        app_name: The app's name.
        filename: The file, as somebody named it; ``beat_schedule_filename`` without.

    Raises:
        ConfigError: ``beat_store_url`` names what keeps none.
        TransportError: The file cannot be opened.
    """
    owner = timetable_owner(conf, app_name)
    if conf.beat_store_url:
        return _named_timetable(conf, transport, owner, app_name)
    named = filename or conf.beat_schedule_filename
    if named != DEFAULT_SCHEDULE_FILE:
        return _file_timetable(named, owner)
    caps = transport.caps
    if caps.timetable and caps.across_processes:
        if caps.once:
            return transport.timetable(owner)
        kept = _timetable_beside_results(conf, result_store, owner, app_name)
        return transport.timetable(owner) if kept is None else kept
    return _file_timetable(named, owner)


def timetable_owner(conf: Settings, app_name: str | None) -> str:
    """Return whose timetable it is: apps of one name that have another default queue are others."""
    return f"{app_name or '__main__'}/{conf.task_default_queue}"


def _file_timetable(path: str, owner: str) -> Timetable:
    # Loaded only now: clients have no use for it.
    module = importlib.import_module("celeriac.transports.schedule_file")
    timetable: Timetable = module.file_timetable(path, owner)
    return timetable


def _timetable_beside_results(
    conf: Settings,
    result_store: Callable[[], ResultBackend | None],
    owner: str,
    app_name: str | None,
) -> Timetable | None:
    results = conf.result_backend
    if isinstance(results, str) and parse(results).scheme in _KEEPING_STORES:
        return transports.connect(results, {}, app_name=app_name).timetable(owner)
    backend: object = result_store()
    return backend.timetable(owner) if isinstance(backend, KeepsTimetable) else None


def _named_timetable(conf: Settings, transport: Transport, owner: str, app_name: str | None) -> Timetable:
    url: str = conf.beat_store_url
    if parse(url).scheme.partition("+")[0] in _DATABASES:
        backend: object = backends.connect(
            backends.BackendSpec(
                url=url,
                codecs=Codecs(),
                options=backends.options_from(conf),
                transport=transport,
                app_name=app_name,
            )
        )
        if isinstance(backend, KeepsTimetable):
            return backend.timetable(owner)
    else:
        store = transports.connect(url, app_name=app_name)
        if store.caps.timetable:
            return store.timetable(owner)
    raise ConfigError(
        f"beat_store_url {mask(url)!r} keeps no timetable: redis:// does (also rediss, sentinel, unix), "
        "sqlite:///file, amqp:// and databases: db+postgresql://…"
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
