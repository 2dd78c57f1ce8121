"""A private PostgreSQL."""

from __future__ import annotations

import itertools
import pwd
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from servers.ports import LOOPBACK
from servers.server import Server, unprivileged


class PostgresServer(Server):
    """PostgreSQL with fsync off and a Unix socket of its own; the user is ``celeriac``, without password."""

    program = "postgres"
    package = "postgresql"
    start_seconds = 30.0

    @classmethod
    def find(cls, name: str, *folders: str) -> str:
        """Look where Debian keeps it, too: it puts only the client on the PATH."""
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: -float(p.parent.name))
        return super().find(name, *map(str, versions), *folders)

    @property
    def url(self) -> str:
        """The URL of the database ``postgres``, as psycopg takes it."""
        return self._url("postgresql", "postgres")

    def fresh_url(self, scheme: str = "postgresql") -> str:
        """Make an empty database and return its URL; ``scheme`` such as ``db+postgresql``."""
        name = f"test_{next(self._fresh)}"
        psql = self.find("psql")
        subprocess.run(
            [psql, "-qAt", "-d", self.url, "-c", f"CREATE DATABASE {name} STRATEGY file_copy"]
            if self._version() >= 15
            else [psql, "-qAt", "-d", self.url, "-c", f"CREATE DATABASE {name}"],
            check=True,
            capture_output=True,
        )
        return self._url(scheme, name)

    def user(self) -> str | None:
        """It refuses to run as root."""
        return unprivileged("postgres")

    def prepare(self) -> None:
        """Make the cluster."""
        user = self.user()
        options = ["-U", "celeriac", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        subprocess.run(
            [self.find("initdb"), "-D", str(self.folder / "data"), *options],
            check=True,
            capture_output=True,
            cwd=self.folder,
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
        )

    def command(self) -> Sequence[str]:
        """Return the command line."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "fsync": "off",  # the operating system outlives our kill -9
            "full_page_writes": "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
        }
        options = itertools.chain.from_iterable(("-c", f"{k}={v}") for k, v in settings.items())
        return [self.find("postgres"), "-D", str(self.folder / "data"), *options]

    def answers(self) -> bool:
        """Whether it takes queries."""
        asked = subprocess.run(
            [self.find("pg_isready"), "-q", "-h", LOOPBACK, "-p", str(self.port)], check=False
        )
        return asked.returncode == 0

    def shut_down(self) -> None:
        """Ask for a fast shutdown: sessions are ended, data is kept."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    def _version(self) -> int:
        return int((self.folder / "data" / "PG_VERSION").read_text().split(".")[0])

    def _url(self, scheme: str, database: str) -> str:
        return f"{scheme}://celeriac@{LOOPBACK}:{self.port}/{database}"
