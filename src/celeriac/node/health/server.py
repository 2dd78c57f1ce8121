"""Answers over HTTP how a process is: ``/livez``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from http import HTTPStatus
from typing import Final, Protocol

import msgspec

from celeriac.node.health import exposition
from celeriac.node.health.address import HttpAddress
from celeriac.node.health.exposition import Family

logger: logging.Logger = logging.getLogger(__name__)

_MOST_HEAD_BYTES: Final = 8192
_MOST_CLIENTS: Final = 32
_CLIENT_SECONDS: Final = 5.0  # to say what it wants and to take the answer
_PLAIN: Final = "text/plain; charset=utf-8"

Answer = tuple[HTTPStatus, str, str]  # status, content type, text


class Condition(Protocol):
    """What is asked for; called on the loop of the server."""

    @property
    def dead(self) -> str | None:
        """Why the process had better be started again; None: it gets on."""
        ...

    @property
    def unready(self) -> str | None:
        """Why it does not do its work now; None: it does."""
        ...

    async def figures(self) -> list[Family]:
        """Return its figures."""
        ...

    async def close(self) -> None:
        """End what is under way for those who asked."""
        ...


class HealthServer:
    """Serves as long as it is entered; it shares a loop, and one that hangs does not answer.

    Args:
        condition: How the process is.
        address: Where to listen.
    """

    def __init__(self, condition: Condition, address: HttpAddress) -> None:
        self._condition = condition
        self._address = address
        self._bound: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> None:
        """Begin to listen.

        Raises:
            ConfigError: The address cannot be had.
        """
        self._bound = bound = self._address.bind()
        start = asyncio.start_unix_server if bound.family == socket.AF_UNIX else asyncio.start_server
        self._server = await start(self._on_client, sock=bound, limit=_MOST_HEAD_BYTES)
        port = self._address.port or (0 if self._address.path else bound.getsockname()[1])
        self._address = msgspec.structs.replace(self._address, port=port)
        logger.info("Health and figures at %s: /livez, /readyz, /metrics", self._address)

    async def __aexit__(self, *exc_info: object) -> None:
        """Listen no more, and let nobody wait."""
        assert self._server is not None
        assert self._bound is not None
        self._server.close()
        for task in self._clients:
            task.cancel()
        await self._condition.close()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._address.release(self._bound)

    # --- one client --------------------------------------------------------------------------------------

    def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= _MOST_CLIENTS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="health")
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Whoever is gone, slow or speaks something else gets no answer.
            with suppress(OSError, EOFError, asyncio.LimitOverrunError, TimeoutError):
                async with asyncio.timeout(_CLIENT_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    method, _, rest = head.decode("latin-1").partition("\r\n")[0].partition(" ")
                    status, kind, text = await self._answer(method, rest.split(" ")[0].partition("?")[0])
                    body = text.encode()
                    writer.write(_head(status, kind, len(body)) + (b"" if method == "HEAD" else body))
                    await writer.drain()
        finally:
            writer.close()

    async def _answer(self, method: str, path: str) -> Answer:
        if path not in ("/livez", "/readyz", "/metrics"):
            return HTTPStatus.NOT_FOUND, _PLAIN, "There are /livez, /readyz and /metrics.\n"
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, _PLAIN, "There is only GET.\n"
        if path == "/metrics":
            figures = exposition.render(await self._condition.figures())
            return HTTPStatus.OK, exposition.CONTENT_TYPE, figures
        wrong = self._condition.unready if path == "/readyz" else self._condition.dead
        if wrong is not None:
            return HTTPStatus.SERVICE_UNAVAILABLE, _PLAIN, f"{wrong}\n"
        return HTTPStatus.OK, _PLAIN, "ok\n"


def _head(status: HTTPStatus, kind: str, length: int) -> bytes:
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    ).encode("ascii")
