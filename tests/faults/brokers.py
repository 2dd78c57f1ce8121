"""The brokers of the fault table: their addresses, with or without a proxy, and what they still hold."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from celeriac.net.redis_link import RedisFailure
from faults.proxy import Proxy
from redis_probe import command
from servers import RabbitServer, RedisServer, Server
from servers.ports import LOOPBACK

Kind = Literal["sqlite", "redis", "rabbitmq", "quorum"]
KINDS: tuple[Kind, ...] = ("sqlite", "redis", "rabbitmq", "quorum")
SERVERS: tuple[Kind, ...] = ("redis", "rabbitmq", "quorum")

_BESIDE_MESSAGES = (
    "celeriac.dead:",
    "celeriac.nodes",
    "celeriac.due",
    "celeriac.outage",
    "celeriac.catching",
)


@dataclass(slots=True)
class Servers:
    """The private servers of one lane of cases; started when first used."""

    redis: RedisServer = field(default_factory=RedisServer)
    rabbitmq: RabbitServer = field(default_factory=RabbitServer)

    def stop(self) -> None:
        """Stop what runs."""
        for server in (self.redis, self.rabbitmq):
            server.stop()


class Broker:
    """Where one case has its messages and results.

    Args:
        kind: What kind of broker.
        servers: The servers to use.
        folder: For files.
        results_elsewhere: Keep results in a Redis of their own, behind `results_proxy`.
        name: The broker's host in the addresses that go through the proxy; None = where the proxy listens.
    """

    def __init__(
        self,
        kind: Kind,
        servers: Servers,
        folder: Path,
        *,
        results_elsewhere: bool = False,
        name: str | None = None,
    ) -> None:
        self.kind = kind
        self._name = name or LOOPBACK
        self.server: Server | None = None
        self.proxy: Proxy | None = None
        self.client_proxy: Proxy | None = None
        self.results_proxy: Proxy | None = None
        self.results_server: RedisServer | None = None
        file = f"sqlite:///{folder}/queue.db"
        self._file = folder / "queue.db"
        match kind:
            case "redis":
                servers.redis.start()
                self.server = servers.redis
                self.url = servers.redis.fresh_url()
                self.results = self.url
            case "rabbitmq" | "quorum":
                servers.rabbitmq.start()
                self.server = servers.rabbitmq
                self.url = servers.rabbitmq.fresh_url()
                self.results = f"sqlite:///{folder}/results.db"
            case "sqlite":
                self.url = self.results = file
        if self.server is not None:
            self.proxy, self.client_proxy = Proxy(self.server.port), Proxy(self.server.port)
        if results_elsewhere:
            self.results_server = servers.redis
            servers.redis.start()
            self.results_proxy = Proxy(servers.redis.port)
            self.results = servers.redis.fresh_url()

    def through(self, url: str) -> str:
        """Return an address that goes through its proxy, when it has one."""
        elsewhere = self.results_proxy is not None and url == self.results
        server = self.results_server if elsewhere else self.server
        proxy = self.results_proxy if elsewhere else self.proxy
        if server is None or proxy is None:
            return url
        host = LOOPBACK if elsewhere else self._name
        return url.replace(f"{LOOPBACK}:{server.port}", f"{host}:{proxy.port}")

    def for_client(self) -> str:
        """Return the broker's address for the client that sends."""
        if self.server is None or self.client_proxy is None:
            return self.url
        return self.url.replace(f":{self.server.port}", f":{self.client_proxy.port}")

    def held(self) -> int:
        """Return how many messages it still has, waiting or leased; dead letters do not count."""
        match self.kind:
            case "sqlite":
                return self._held_by_sqlite()
            case "redis":
                return self._held_by_redis()
        return self._held_by_rabbitmq()

    def disconnect_all(self) -> None:
        """Have the server end the connections of its clients, as an operator does."""
        assert self.server is not None
        if self.kind == "redis":
            with contextlib.suppress(RedisFailure):  # it ends ours, too
                command(self.url, "CLIENT", "KILL", "TYPE", "normal")
        elif isinstance(self.server, RabbitServer):
            self.server.evaluate('rabbit_networking:close_all_connections(<<"by an operator">>).')

    def close(self) -> None:
        """Close the proxies."""
        for proxy in (self.proxy, self.client_proxy, self.results_proxy):
            if proxy is not None:
                proxy.close()

    def _held_by_sqlite(self) -> int:
        if not self._file.exists():
            return 0
        with contextlib.closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True, timeout=30)) as file:
            tables = ("ready", "keyed", "parked", "leases")
            count = "SELECT count(*) FROM {} WHERE queue = 'celery'"
            return sum(int(file.execute(count.format(table)).fetchone()[0]) for table in tables)

    def _held_by_redis(self) -> int:
        lists = ("celery", "celeriac.catch:")
        count = 0
        for key in command(self.url, "KEYS", "*"):
            name = key.decode()
            if name.startswith(_BESIDE_MESSAGES):
                continue
            if name.startswith("celeriac.lease:"):
                count += int(command(self.url, "HLEN", name))
            elif name.startswith(("celeriac.parked:", "celeriac.keyed:")):
                count += int(command(self.url, "ZCARD", name))
            elif name.startswith(lists) and command(self.url, "TYPE", name) in (b"list", "list"):
                count += int(command(self.url, "LLEN", name))
        return count

    def _held_by_rabbitmq(self) -> int:
        assert isinstance(self.server, RabbitServer)
        vhost = self.url.rpartition("/")[2]
        found = self.server.evaluate(
            "[{element(4, element(2, Q)), element(2, N)} || "
            f'Q <- rabbit_amqqueue:list(<<"{vhost}">>), '
            "N <- rabbit_amqqueue:info(Q, [messages])]."
        )
        return sum(
            int(count) for name, count in re.findall(r'<<"([^"]*)">>,(\d+)', found) if name == "celery"
        )
