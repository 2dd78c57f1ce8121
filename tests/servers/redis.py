"""A private Redis."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from servers.ports import LOOPBACK
from servers.server import Server


class RedisServer(Server):
    """Redis, durable over `kill` and `start` (append-only file), with 1,000 databases to hand out.

    Args:
        *options: More options, as on redis-server's command line.
    """

    program = "redis-server"
    package = "redis-server"

    def __init__(self, *options: str) -> None:
        super().__init__()
        self._options = options

    @property
    def url(self) -> str:
        """The server without a database."""
        return f"redis://{LOOPBACK}:{self.port}"

    @property
    def socket_path(self) -> Path:
        """The Unix socket that it listens on, too."""
        return self.folder / "redis.sock"

    def fresh_url(self) -> str:
        """Return the URL of a database that nobody has used yet (channels are not per database)."""
        return f"{self.url}/{next(self._fresh)}"

    def command(self) -> Sequence[str]:
        """Return the command line."""
        settings = {
            "--port": str(self.port),
            "--bind": LOOPBACK,
            "--unixsocket": str(self.socket_path),
            "--dir": str(self.folder),
            "--databases": "1000",
            "--save": "",
            "--appendonly": "yes",
            "--appendfsync": "no",  # the operating system outlives our kill -9
        }
        return [self.find("redis-server"), *itertools.chain(*settings.items()), *self._options]

    def answers(self) -> bool:
        """Whether it has loaded its data; one with a password says so and is ready as well."""
        return self._says(b"PING\r\n", b"+PONG") or self._says(b"PING\r\n", b"-NOAUTH")


class SentinelServer(Server):
    """A Redis Sentinel, which says after a second without an answer that a server is down.

    Args:
        master: Whom to watch, with its replicas.
        name: What to call it.
        quorum: How many sentinels have to miss it.
        password: Of the Redis servers.
        own_password: For its own clients and the other sentinels; None lets everybody in.
    """

    program = "redis-server"
    package = "redis-server"

    def __init__(
        self, master: RedisServer, name: str, *, quorum: int, password: str, own_password: str | None
    ) -> None:
        super().__init__()
        self._master = master
        self._name = name
        self._quorum = quorum
        self._password = password
        self._own_password = own_password

    def prepare(self) -> None:
        """Write its configuration, which it keeps up to date itself."""
        lines = [
            f"port {self.port}",
            f"bind {LOOPBACK}",
            f"sentinel monitor {self._name} {LOOPBACK} {self._master.port} {self._quorum}",
            f"sentinel auth-pass {self._name} {self._password}",
            f"sentinel down-after-milliseconds {self._name} 1000",
            f"sentinel failover-timeout {self._name} 5000",
        ]
        if self._own_password:
            lines += [f"requirepass {self._own_password}", f"sentinel sentinel-pass {self._own_password}"]
        (self.folder / "sentinel.conf").write_text("\n".join([*lines, ""]))

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [self.find("redis-server"), str(self.folder / "sentinel.conf"), "--sentinel"]

    def answers(self) -> bool:
        """Whether it is there."""
        return self._says(b"PING\r\n", b"+PONG") or self._says(b"PING\r\n", b"-NOAUTH")
