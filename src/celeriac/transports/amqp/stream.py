"""A connection for an asyncio loop: the same machine, driven by the loop's own reader and writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from celeriac.errors import DecodeError
from celeriac.transports.amqp import frames
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.connection import Connection, Event, Lost, Refused, Request

REPLY_SECONDS: Final = 10.0  # the broker answers in milliseconds, or not at all


class Stream(asyncio.Protocol):
    """One open connection to RabbitMQ, with heartbeats in both directions.

    Args:
        address: Where.
        on_events: Called with what the broker sends unasked, as many at once as one read brought.
        on_end: Called once when the connection is over, however it ended.
    """

    def __init__(
        self,
        address: Address,
        on_events: Callable[[list[Event]], None],
        on_end: Callable[[Exception], None],
    ) -> None:
        self.address = address
        self.core: Connection = Connection(address.login)
        self._on_events = on_events
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self._pulse: asyncio.TimerHandle | None = None
        self._heard = True  # since the last pulse
        self._spoke = True
        self._silent = 0  # pulses without a byte from the broker

    async def connect(self) -> None:
        """Connect and log in.

        Raises:
            BrokerUnreachable: Nobody answers in time, or we are refused.
        """
        address = self.address
        try:
            async with asyncio.timeout(address.connect_seconds):
                await self._loop.create_connection(
                    lambda: self,
                    address.host,
                    address.port,
                    ssl=address.tls,
                    server_hostname=address.server_name if address.tls else None,
                )
                await self._answer(self.core.ready)
        except (OSError, Refused, Lost, DecodeError) as exc:
            self.abort(exc)
            raise address.unreachable(exc) from exc
        except asyncio.CancelledError:
            self.abort(Lost("the wait for it was cancelled"))
            raise
        if self.core.heartbeat_seconds:
            self._pulse = self._loop.call_later(self.core.heartbeat_seconds / 2, self._beat)

    async def call(self, *requests: tuple[Any, ...], channel: int = 1) -> list[Any]:
        """Ask one thing after the other in one write and return the answers.

        Raises:
            Refused: The broker refused one and closed the channel.
            Lost: The connection ended.
            TimeoutError: No answer in time.
        """
        asked = self.ask(*requests, channel=channel)
        async with asyncio.timeout(REPLY_SECONDS):
            return [await self._answer(request) for request in asked]

    def ask(self, *requests: tuple[Any, ...], channel: int = 1) -> list[Request]:
        """Do the same, but do not wait; a refusal is told as an event too, for it closes the channel."""
        asked = [self.core.request(channel, *request) for request in requests]
        self.flush()
        return asked

    def write(self, data: bytes) -> None:
        """Write frames that are not answered; what is written to a lost connection is lost with it."""
        self.core.write(data)
        self.flush()

    def flush(self) -> None:
        """Hand to the socket what the core has queued."""
        data = self.core.take()
        if data and self._transport is not None and not self._transport.is_closing():
            self._spoke = True
            self._transport.write(data)

    @property
    def unsent(self) -> int:
        """How many bytes wait for the broker to read them."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    async def close(self, seconds: float = 2.0) -> None:
        """Close politely and return when the socket is closed."""
        if self._transport is None:
            return
        if self.core.error is None:
            self.core.close()
            self.flush()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._closed)
        except TimeoutError:
            self.abort(Lost("closed"))
            await self._closed

    def abort(self, error: Exception) -> None:
        """Hang up; everything asked for fails with the error."""
        self.core.lost(self.address.ended(error))
        if self._transport is not None:
            self._transport.abort()

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._transport = cast("asyncio.Transport", transport)
        if self.core.error is not None:  # nobody waits for it any more
            self._transport.abort()
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Feed the machine and pass on what comes out."""
        self._heard = True
        try:
            events = self.core.feed(data)
        except (DecodeError, Refused) as exc:
            self.abort(exc)
            return
        self.flush()
        if events:
            self._on_events(events)
        if self.core.error is not None and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody."""
        self.core.lost(self.address.ended(exc or Lost("RabbitMQ closed the connection")))
        if self._pulse is not None:
            self._pulse.cancel()
        if not self._closed.done():
            self._closed.set_result(None)
        assert self.core.error is not None
        self._on_end(self.core.error)

    # --- inside ---

    async def _answer(self, request: Request) -> Any:
        if not request.done:
            future = self._loop.create_future()
            request.notify = lambda: None if future.done() else future.set_result(None)
            await future
        if request.error is not None:
            raise request.error
        return request.answer

    def _beat(self) -> None:
        """Twice per interval: say that we live, unless we spoke anyway; hang up on a dead broker."""
        self._silent = 0 if self._heard else self._silent + 1
        if self._silent >= 4:
            seconds = 2 * self.core.heartbeat_seconds
            self.abort(
                Lost(f"nothing was heard from RabbitMQ for {seconds} s: it hangs, or the network is gone")
            )
            return
        if not self._spoke:
            self.write(frames.HEARTBEAT_FRAME)
        self._heard = self._spoke = False
        self._pulse = self._loop.call_later(self.core.heartbeat_seconds / 2, self._beat)
