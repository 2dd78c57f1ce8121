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
