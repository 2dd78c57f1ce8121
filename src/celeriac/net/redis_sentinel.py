"""Redis Sentinel: programs beside the Redis servers that agree which of these is the master.

Protocol: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from celeriac.errors import ConfigError
from celeriac.net.redis_link import (
    ConnectionLost,
    RedisFailure,
    Refused,
    Unreachable,
    checked,
    open_link,
    pack,
)
from celeriac.net.redis_servers import SENTINEL, Servers
from celeriac.net.redis_url import RedisAddress, addresses
from celeriac.net.url import mask

SENTINEL_PORT: Final = 26379
_ANSWER_SECONDS: Final = 1.0  # of one sentinel; there are others


class Sentinels:
    """Tells where the master is now; asks one sentinel after the other until one of them knows.

    Args:
        servers: The sentinels.
        master_name: What they call the master.
        master: How to get in there; host and port are to be found.
    """

    def __init__(self, servers: Servers, master_name: str, master: RedisAddress) -> None:
        self._servers = servers
        self._master_name = master_name
        self._master = master

    def master(self, until: float) -> tuple[RedisAddress, RedisAddress]:
        """Return where the master is, and the sentinel that said so.

        Args:
            until: When to give up; `time.monotonic` seconds.

        Raises:
            Unreachable: None of the sentinels knows; says why.
        """
        reasons = []
        for _, sentinel in self._servers.tries():
            try:
                return self._ask(sentinel, until), sentinel
            except RedisFailure as exc:
                reasons.append(f"{sentinel.host}:{sentinel.port}: {exc}")
        raise Unreachable(f"no sentinel knows the master {self._master_name!r} ({'; '.join(reasons)})")

    def doubt(self, sentinel: RedisAddress) -> None:
        """Ask the others first: the master of this one did not do."""
        self._servers.skip(sentinel)

    def _ask(self, sentinel: RedisAddress, until: float) -> RedisAddress:
        until = min(until, time.monotonic() + sentinel.connect_seconds)
        link = open_link(Servers([sentinel]), until)
        try:
            question = pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master_name))
            [found] = checked(link.call(question, 1, until))
        finally:
            link.close()
        if found is None:
            raise Refused("it has no master of that name")
        try:
            host, port = found[0].decode(), int(found[1])
        except (TypeError, ValueError, IndexError, AttributeError) as exc:
            raise ConnectionLost(f"its answer is {found!r:.100}") from exc
        return msgspec.structs.replace(self._master, host=host, port=port)


def servers(url: str, options: Mapping[str, Any]) -> Servers:  # Any: driver options
    """Return the one server whose place the sentinels know; see `celeriac.net.redis_servers.servers`.

    Raises:
        ConfigError: There is no ``master_name``, or something cannot be; says which.
    """
    name = options.get("master_name")
    if not name:
        raise ConfigError(
            f"{mask(url)!r} needs the name by which the sentinels know the master: set master_name in "
            "broker_transport_options, or in result_backend_transport_options for results."
        )
    parts = [part.strip() for part in url.split(";") if part.strip()]
    parts = [part if "://" in part else f"{SENTINEL}://{part}" for part in parts]
    named = addresses(";".join(parts), options)
    master = msgspec.structs.replace(
        named[0],
        database=next((one.database for one in named if one.database), 0),
        user=next((one.user for one in named if one.user), None),
        password=next((one.password for one in named if one.password), None),
        shown=mask(url),
        must_lead=True,
    )
    sentinels = Sentinels(
        Servers(_sentinels(parts, dict(options.get("sentinel_kwargs") or {}))), name, master
    )
    return Servers([msgspec.structs.replace(master, sentinels=sentinels)])


def _sentinels(parts: list[str], options: dict[str, Any]) -> list[RedisAddress]:
    """Return the sentinels themselves, which are let in by their own options only."""
    if options.get("ssl"):
        options["ssl"] = {key: value for key, value in options.items() if key.startswith("ssl_")} or True
    options = {"port": SENTINEL_PORT, "socket_connect_timeout": _ANSWER_SECONDS, **options}
    return [
        msgspec.structs.replace(
            one,
            database=0,
            user=options.get("username"),
            password=options.get("password"),
        )
        for part in parts
        for one in addresses(part, options)
    ]
