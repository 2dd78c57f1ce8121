"""Broadcasts on Redis channels, for control and events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from celeriac.net.redis_link import RedisFailure, checked, pack
from celeriac.net.redis_servers import Servers
from celeriac.net.redis_stream import Streams
from celeriac.transports.redis.errors import translated
from celeriac.transports.redis.names import Names


class RedisFanout:
    """Publishes to and listens on the channels of fanout exchanges.

    One connection for everything; it is opened at first use, and again after it was lost. What is published
    while there is none is missed, as it is the nature of channels.

    Args:
        servers: The servers to try.
        shown: The broker's URL, its password hidden.
        names: The names of channels.
    """

    def __init__(self, servers: Servers, shown: str, names: Names) -> None:
        self._streams = Streams(servers, self._pushed, self._tell_all)
        self._shown = shown
        self._names = names
        self._listeners: dict[bytes, list[asyncio.Queue[bytes | RedisFailure | None]]] = {}

    async def publish(self, exchange: str, routing_key: str, envelope: bytes) -> None:
        """See `celeriac.ports.Fanout`.

        Raises:
            TransportError: The connection was lost, or there is none to be had.
        """
        try:
            stream = await self._streams.get()
            channel = self._names.channel(exchange, routing_key)
            checked(await stream.call(pack(("PUBLISH", channel, envelope)), 1))
        except RedisFailure as exc:
            raise translated(exc, self._shown, f"broadcasting to {exchange!r}") from exc

    async def subscribe(self, exchange: str, pattern: str) -> AsyncIterator[bytes]:
        """See `celeriac.ports.Fanout`.

        Raises:
            TransportError: The connection was lost, or there is none to be had; subscribe again.
        """
        channel = self._names.channel_pattern(exchange, pattern).encode()
        inbox: asyncio.Queue[bytes | RedisFailure | None] = asyncio.Queue()
        self._listeners.setdefault(channel, []).append(inbox)
        try:
            stream = await self._streams.get()
            # The server answers the PING after it has subscribed us.
            checked(await stream.call(pack(("PSUBSCRIBE", channel)) + pack(("PING",)), 1))
            while (item := await inbox.get()) is not None:
                if isinstance(item, RedisFailure):
                    raise item
                yield item
        except RedisFailure as exc:
            raise translated(exc, self._shown, f"listening to {exchange!r}") from exc
        finally:
            self._listeners[channel].remove(inbox)
            if not self._listeners[channel]:
                del self._listeners[channel]
                if (current := self._streams.current()) is not None:
                    current.tell(pack(("PUNSUBSCRIBE", channel)))

    async def close(self) -> None:
        """See `celeriac.ports.Fanout`."""
        self._tell_all(None)
        self._streams.close()

    def _pushed(self, push: list[Any]) -> None:  # Any: whatever Redis sends
        if push[0] == b"pmessage":
            for inbox in self._listeners.get(push[1], ()):
                inbox.put_nowait(push[3])

    def _tell_all(self, item: RedisFailure | None) -> None:
        for inboxes in self._listeners.values():
            for inbox in inboxes:
                inbox.put_nowait(item)
