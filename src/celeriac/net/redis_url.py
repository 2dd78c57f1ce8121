"""Where a Redis server is and how to get in, taken from a URL and the options beside it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from celeriac.errors import ConfigError
from celeriac.net.url import Url, mask, parse

DEFAULT_PORT: Final = 6379
CONNECT_SECONDS: Final = 4.0  # Celery's broker_connection_timeout
ANSWER_SECONDS: Final = 3.0  # after that a silent server counts as gone; with a reconnection it stays below 5


class RedisAddress(msgspec.Struct, frozen=True, kw_only=True):
    """One server and one database of it."""

    shown: str  # the URL without its password: for people
    host: str = "localhost"
    port: int = DEFAULT_PORT
    socket_path: str | None = None  # of a Unix socket, instead of host and port
    database: int = 0
    user: str | None = None
    password: str | None = None
    client_name: str | None = None
    keepalive: bool = False
    connect_seconds: float = CONNECT_SECONDS
    answer_seconds: float = ANSWER_SECONDS
    must_lead: bool = False  # a replica, which takes nothing, does not do
    sentinels: Any = None  # Any: celeriac.net.redis_sentinel.Sentinels, who know host and port
    tls: Any = None  # Any: an ssl.SSLContext; to name it here would load ssl for everybody


def addresses(url: str, options: Mapping[str, Any]) -> tuple[RedisAddress, ...]:  # Any: driver options
    """Return the servers that a URL names, in the order in which to try them.

    Args:
        url: ``redis://[user:password@]host[:port]/db``, ``rediss://…?ssl_cert_reqs=…``,
            ``redis+socket:///path?virtual_host=db`` or ``unix:///path?db=0``; several, separated by ``;``.
        options: Of these count ``username``, ``password``, ``client_name``, ``socket_connect_timeout`` (or
            ``connect_timeout``) and ``socket_timeout`` in seconds, ``socket_keepalive`` and ``ssl`` (True or
            a mapping of ``ssl_…``).

    Raises:
        ConfigError: A part of the URL cannot be; says which.
    """
    return tuple(_address(part.strip(), options) for part in url.split(";") if part.strip())


def _address(text: str, options: Mapping[str, Any]) -> RedisAddress:
    url = parse(text)
    local = url.scheme in ("unix", "redis+socket")
    if local and not (url.path or url.host):
        raise ConfigError(f"{mask(text)!r} has no path of a socket; write it as {url.scheme}:///path/to.sock")
    return RedisAddress(
        shown=mask(text),
        host=url.host or options.get("host") or "localhost",
        port=url.port or int(options.get("port") or DEFAULT_PORT),
        socket_path=f"/{url.path}" if local else None,
        database=_database(url, text, options, local=local),
        user=url.user or url.query.get("username") or options.get("username"),
        password=url.password or url.query.get("password") or options.get("password"),
        client_name=url.query.get("client_name") or options.get("client_name"),
        keepalive=bool(options.get("socket_keepalive")),
        connect_seconds=_seconds(
            ("socket_connect_timeout", "connect_timeout"), url, options, CONNECT_SECONDS
        ),
        answer_seconds=_seconds(("socket_timeout",), url, options, ANSWER_SECONDS),
        tls=_tls(url, options),
    )


def _database(url: Url, text: str, options: Mapping[str, Any], *, local: bool) -> int:
    wanted = (url.query.get("virtual_host") or url.query.get("db") or "0") if local else url.path
    wanted = (wanted or url.query.get("db") or str(options.get("db") or 0)).strip("/")
    if not wanted.isdecimal():
        raise ConfigError(f"The database in {mask(text)!r} is {wanted!r}; it has to be a number, such as 0.")
    return int(wanted)


def _seconds(names: Sequence[str], url: Url, options: Mapping[str, Any], default: float) -> float:
    for name in names:
        value = url.query.get(name) or options.get(name)
        if value:
            try:
                return float(value)
            except (TypeError, ValueError) as exc:
                raise ConfigError(f"{name} is {value!r}; it has to be a number of seconds.") from exc
    return default


def _tls(url: Url, options: Mapping[str, Any]) -> Any:  # Any: as in RedisAddress
    given = options.get("ssl")
    if url.scheme != "rediss" and not given:
        return None
    chosen = {**given} if isinstance(given, Mapping) else {}
    chosen.update((key, value) for key, value in url.query.items() if key.startswith("ssl_"))
    return importlib.import_module("celeriac.net.tls").context_from(chosen)
