"""Answers over HTTP how a node is: ``/livez``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from celeriac.errors import TransportError
from celeriac.node.health import exposition
from celeriac.node.health.address import HttpAddress
from celeriac.node.health.figures import QueueFigures, families

if TYPE_CHECKING:
    from celeriac.node.node import Node
    from celeriac.node.watchdog import Watchdog

logger: logging.Logger = logging.getLogger(__name__)

_MOST_HEAD_BYTES: Final = 8192
_MOST_CLIENTS: Final = 32
_CLIENT_SECONDS: Final = 5.0  # to say what it wants and to take the answer
_LOOK_SECONDS: Final = 2.0  # for the broker to tell how long the queues are
_PLAIN: Final = "text/plain; charset=utf-8"

Answer = tuple[HTTPStatus, str, str]  # status, content type, text


class HealthServer:
    """Serves as long as it is entered, from before the broker is reached to after the last task has ended.

    It shares the node's loop: a loop that hangs does not answer, which is an answer as well. The broker is
    asked for the lengths and ages of queues in a thread, by one request at a time.

    Args:
        node: The node.
        watchdog: Knows whether it gets on; None: nobody looks.
        address: Where to listen.
    """

    def __init__(self, node: Node, watchdog: Watchdog | None, address: HttpAddress) -> None:
        self._node = node
        self._watchdog = watchdog
        self._address = address
        self._bound: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._look: asyncio.Task[dict[str, QueueFigures]] | None = None

    async def __aenter__(self) -> None:
        """Begin to listen.

        Raises:
            ConfigError: The address cannot be had.
        """
        self._bound = bound = self._address.bind()
        start = asyncio.start_unix_server if bound.family == socket.AF_UNIX else asyncio.start_server
        self._server = await start(self._on_client, sock=bound, limit=_MOST_HEAD_BYTES)
        port = self._address.port or (0 if self._address.path else bound.getsockname()[1])
        self._address = HttpAddress(self._address.host, port, self._address.path)
        logger.info("Health and figures at %s: /livez, /readyz, /metrics", self._address)

    async def __aexit__(self, *exc_info: object) -> None:
        """Listen no more, and let nobody wait."""
        assert self._server is not None
        assert self._bound is not None
        self._server.close()
        for task in (*self._clients, *([self._look] if self._look is not None else [])):
            task.cancel()
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
            figures = families(self._node, await self._depths(), time.time())
            return HTTPStatus.OK, exposition.CONTENT_TYPE, exposition.render(figures)
        wrong = self._node.unready if path == "/readyz" else self._dead()
        if wrong is not None:
            return HTTPStatus.SERVICE_UNAVAILABLE, _PLAIN, f"{wrong}\n"
        return HTTPStatus.OK, _PLAIN, "ok\n"

    def _dead(self) -> str | None:
        return None if self._watchdog is None else self._watchdog.found

    # --- the queues --------------------------------------------------------------------------------------

    async def _depths(self) -> dict[str, QueueFigures]:
        """Return what there is to know of the queues; nothing when the broker does not tell in time."""
        if not self._node.link.is_up:
            return {}
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(asyncio.to_thread(self._sizes), name="depths")
        done, _ = await asyncio.wait([self._look], timeout=_LOOK_SECONDS)
        try:
            return self._look.result() if done else {}
        except TransportError as exc:
            logger.info("The queues could not be looked at: %s", exc)
            return {}

    def _sizes(self) -> dict[str, QueueFigures]:
        transport = self._node.link.transport
        return {name: QueueFigures.of(transport, name) for name in list(self._node.queues)}


def _head(status: HTTPStatus, kind: str, length: int) -> bytes:
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    ).encode("ascii")
