"""A private memcached."""

from __future__ import annotations

from collections.abc import Sequence

from servers.ports import LOOPBACK
from servers.server import Server, unprivileged


class MemcachedServer(Server):
    """memcached with 64 MB; everything is gone after `kill`."""

    program = "memcached"
    package = "memcached"

    @property
    def address(self) -> str:
        """Host and port, as `cache+memcached://` takes it."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        """The URL of a result backend on it."""
        return f"cache+memcached://{self.address}/"

    def user(self) -> str | None:
        """It refuses to run as root."""
        return unprivileged("memcache")

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [self.find("memcached"), "-l", LOOPBACK, "-p", str(self.port), "-U", "0", "-m", "64"]

    def shut_down(self) -> None:
        """Kill it: it has nothing to save, and takes a second to end by itself."""
        assert self._process is not None
        self._process.kill()

    def answers(self) -> bool:
        """Whether it serves."""
        return self._says(b"version\r\n", b"VERSION")
