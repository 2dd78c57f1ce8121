"""The address at which a worker or a scheduler is asked how it is."""

from __future__ import annotations

import contextlib
import os
import socket
import stat

import msgspec

from celeriac.errors import ConfigError

_UNIX = "unix:"


class HttpAddress(msgspec.Struct, frozen=True):
    """A host and a port, or a socket in the file system."""

    host: str = ""
    port: int = 0
    path: str = ""  # of a unix socket; empty: there is none
    setting: str = "worker_http_address"  # that says so; for what is told when it does not work

    def __str__(self) -> str:
        """Return it as it is written in a URL."""
        if self.path:
            return f"{_UNIX}{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def bind(self) -> socket.socket:
        """Return a socket that listens there and is handed on to no child.

        Raises:
            ConfigError: That cannot be had; says why, and what to do.
        """
        try:
            return self._bound_to_path() if self.path else self._bound_to_port()
        except OSError as exc:
            raise ConfigError(
                f"{self.setting}: nothing can listen at {self}: {exc.strerror or exc}. "
                "Each process of a machine needs an address of its own that is free and may be used."
            ) from exc

    def release(self, bound: socket.socket) -> None:
        """Close what `bind` has returned."""
        bound.close()
        if self.path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def _bound_to_port(self) -> socket.socket:
        family, *_, where = socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(where[:2], family=family)

    def _bound_to_path(self) -> socket.socket:
        bound = socket.socket(socket.AF_UNIX)
        try:
            self._remove_what_is_dead()
            bound.bind(self.path)
            bound.listen()
        except BaseException:
            bound.close()
            raise
        return bound

    def _remove_what_is_dead(self) -> None:
        """Remove a socket that nobody listens at: its worker was killed."""
        try:
            if not stat.S_ISSOCK(os.stat(self.path).st_mode):
                return
        except FileNotFoundError:
            return
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.path)
            except ConnectionRefusedError:
                os.unlink(self.path)


def http_address(text: str | None, setting: str = "worker_http_address") -> HttpAddress | None:
    """Return what a setting says: ``host:port``, ``[v6]:port`` or ``unix:path``; None: nothing.

    Raises:
        ConfigError: It is none of these.
    """
    if not text:
        return None
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if path:
            return HttpAddress(path=path, setting=setting)
    else:
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        is_port = port.isascii() and port.isdigit() and int(port) < 65536
        if colon and host and is_port and bracketed == (":" in host):
            return HttpAddress(host, int(port), setting=setting)
    raise ConfigError(
        f"{setting} = {text!r} is no address: it takes host:port, such as 127.0.0.1:9808 or "
        "0.0.0.0:9808, or unix:/path/to/socket."
    )
