"""The AMQP connection as a machine without sockets: bytes in, events out, bytes to write.

Rule: everything that knows the order of the protocol lives here, and nothing here does I/O or reads a clock.
Two thin drivers move the bytes: `link` for threads that may block, `stream` for an asyncio loop.
"""

from __future__ import annotations

import platform
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from celeriac.errors import DecodeError
from celeriac.transports.amqp import frames
from celeriac.transports.amqp.tables import decode_arguments


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Who we are and what we ask the broker for."""

    user: str
    password: str
    vhost: str
    mechanism: str = "PLAIN"  # or EXTERNAL: the TLS certificate says who we are
    heartbeat_seconds: int = 0  # 0 = none
    name: str = ""  # shown in RabbitMQ's lists of connections


class Refused(Exception):
    """Raised inside the transport when the broker closed a channel or the connection with a reason.

    Args:
        code: AMQP's reply code, such as 404.
        text: The broker's words, such as ``NOT_FOUND - no queue 'x' in vhost '/'``.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Lost(Exception):
    """Raised inside the transport when the connection ended without a reason given in AMQP."""


# --- events ---------------------------------------------------------------------------------------------


class Message(msgspec.Struct, gc=False):
    """A message with its properties still bytes; ``consumer`` is empty unless it was pushed to one."""

    channel: int
    consumer: str
    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    returned: str | None  # why it could not be routed; None for one that was delivered
    properties: bytes = b""
    body: bytes = b""


class Confirm(msgspec.Struct, frozen=True, gc=False):
    """The broker has (``ok``) or refuses what was published under a tag, and before it when ``multiple``."""

    channel: int
    tag: int
    multiple: bool
    ok: bool


class Cancelled(msgspec.Struct, frozen=True, gc=False):
    """The broker has cancelled a consumer: its queue is gone."""

    channel: int
    consumer: str


class ChannelClosed(msgspec.Struct, frozen=True):
    """The broker has closed a channel; what was asked on it has failed with the same error."""

    channel: int
    error: Refused


Event = Message | Confirm | Cancelled | ChannelClosed


class Request:
    """A method that the broker has to answer. ``answer`` holds the reply's arguments (or a `Message`).

    Args:
        awaited: What the reply to it is known by, see `_key`.
    """

    __slots__ = ("answer", "awaited", "done", "error", "notify")

    def __init__(self, awaited: str = "") -> None:
        self.answer: Any = None
        self.awaited: str = awaited
        self.error: Exception | None = None
        self.done: bool = False
        self.notify: Callable[[], None] | None = None  # an asyncio driver waits with this

    def settle(self, answer: Any, error: Exception | None = None) -> None:
        """Note the outcome and tell whoever waits."""
        self.answer, self.error, self.done = answer, error, True
        if self.notify is not None:
            self.notify()


class _Channel:
    """What the connection remembers of one channel."""

    __slots__ = ("chunks", "message", "missing", "open", "requests")

    def __init__(self) -> None:
        self.open = True
        self.requests: deque[Request] = deque()  # oldest first
        self.message: Message | None = None  # its header or body frames are still to come
        self.missing = -1  # bytes of body to come; -1 = the header is to come
        self.chunks: list[bytes] = []


# Of what is answered by naming a consumer, the argument that names it.
_TAG_AT: Final = {"basic.consume": 2, "basic.cancel": 0}


def _key(reply: str, tag: str) -> str:
    """Return what tells a reply from others: its name, and the consumer that it is about, if we named it."""
    return f"{reply} {tag}" if tag else reply


State = Literal["start", "tune", "opening", "open", "closing", "closed"]
_DELIVER: Final = b"\x00\x3c\x00\x3c"  # class and method of basic.deliver
_DELIVERY: Final = struct.Struct(">QBB")  # its tag, flag and the size of the exchange's name
_MAX_BODY: Final = 2**31  # a peer that announces more than this is no RabbitMQ

# Which method moves the connection from which state; anything else there is a broken peer.
_HANDSHAKE: Final[dict[tuple[State, str], str]] = {
    ("start", "connection.start"): "_start",
    ("tune", "connection.tune"): "_tune",
    ("opening", "connection.open-ok"): "_opened",
}


class Connection:
    """One AMQP 0-9-1 connection.

    1. `feed` it what the socket gives; it returns events in order and settles requests.
    2. Write to the socket what `take` returns, after every call.
    3. Tell it of the socket's end with `lost`.
    """

    def __init__(self, login: Login) -> None:
        self.state: State = "start"
        self.error: Lost | Refused | None = None  # why the connection is over
        self.agreed: bool = False  # it was closed in good order
        self.blocked: str | None = None  # the broker's reason for taking no publishes at the moment
        self.frame_max: int = frames.FRAME_MAX
        self.heartbeat_seconds: int = login.heartbeat_seconds
        self.server: dict[str, Any] = {}  # what the broker says of itself
        self.ready: Request = Request()
        self._login = login
        self._rest = b""
        self.outgoing: list[bytes] = [frames.PROTOCOL_HEADER]  # to be written, see `take`
        self._channels: dict[int, _Channel] = {0: _Channel()}
        self._events: list[Event] = []

    # --- what drivers call ---

    def take(self) -> bytes:
        """Return the bytes to write now and forget them."""
        data = b"".join(self.outgoing)
        self.outgoing.clear()
        return data

    def write(self, data: bytes) -> None:
        """Queue frames made elsewhere."""
        self.outgoing.append(data)

    def request(self, channel: int, name: str, *arguments: Any) -> Request:
        """Queue a method that is answered; a channel that is not open is opened first."""
        tag = arguments[_TAG_AT[name]] if name in _TAG_AT else ""
        request = Request(_key(f"{name}-ok", tag))
        if self.error is not None:
            request.settle(None, self.error)
            return request
        frame = frames.method(channel, name, *arguments)
        self.open_channel(channel)
        self.outgoing.append(frame)
        self._channels[channel].requests.append(request)
        return request

    def open_channel(self, channel: int) -> None:
        """Open a channel unless it is open; its number may be used again after the broker closed it."""
        if channel not in self._channels:
            self._channels[channel] = _Channel()
            self._channels[channel].requests.append(Request("channel.open-ok"))
            self.outgoing.append(frames.method(channel, "channel.open", ""))

    def close(self) -> None:
        """Queue the polite end; `error` is set when the broker has agreed."""
        if self.error is None and self.state != "closing":
            self.state = "closing"
            self.outgoing.append(frames.method(0, "connection.close", 200, "", 0, 0))

    def lost(self, error: Lost | Refused) -> None:
        """Note that the socket is gone: everything asked for fails."""
        if self.error is None:
            self.error = error
        self.state = "closed"
        self.ready.settle(None, self.error) if not self.ready.done else None
        for channel in self._channels.values():
            self._fail(channel, self.error)

    def feed(self, data: bytes) -> list[Event]:
        """Take in what the broker sent, cut anywhere.

        Raises:
            DecodeError: This is not AMQP; the connection has to be dropped.
        """
        if self._rest:
            data = self._rest + data
        pos, end = 0, len(data)
        unpack = frames.HEAD.unpack_from
        while end - pos >= 8:
            kind, number, size = unpack(data, pos)
            stop = pos + 7 + size
            if size > self.frame_max or kind > frames.HEARTBEAT:
                raise DecodeError(
                    f"this is no AMQP frame of at most {self.frame_max} bytes: {data[pos : pos + 8]!r}"
                )
            if stop >= end:
                break
            if data[stop] != frames.FRAME_END:
                raise DecodeError("an AMQP frame does not end where it says")
            pos += 7
            if kind == frames.METHOD and data[pos : pos + 4] == _DELIVER:
                self._deliver(number, data, pos + 4)
            else:
                self._frame(kind, number, data, pos, stop)
            pos = stop + 1
        self._rest = data[pos:]
        events, self._events = self._events, []
        return events

    # --- frames ---

    def _frame(self, kind: int, number: int, data: bytes, start: int, stop: int) -> None:
        if kind == frames.HEARTBEAT:
            return
        channel = self._channels.get(number)
        if channel is None:
            return  # what was on its way when the channel was closed
        if kind == frames.METHOD:
            self._method(number, channel, data, start, stop)
        elif channel.message is None:
            raise DecodeError("AMQP content without a method before it")
        elif kind == frames.HEADER:
            channel.message.properties = data[start + 12 : stop]
            channel.missing = int.from_bytes(data[start + 4 : start + 12])
            if channel.missing > _MAX_BODY:
                raise DecodeError(f"an AMQP message announces a body of {channel.missing} bytes")
            if not channel.missing:
                self._complete(channel, b"")
        else:
            part = data[start:stop]
            channel.missing -= len(part)
            if channel.missing > 0:
                channel.chunks.append(part)
            elif channel.chunks:
                channel.chunks.append(part)
                body = b"".join(channel.chunks)
                channel.chunks.clear()
                self._complete(channel, body)
            else:
                self._complete(channel, part)

    def _deliver(self, number: int, data: bytes, pos: int) -> None:
        """Take in basic.deliver, the method that comes by the thousand: 1 µs instead of 5 by the table."""
        channel = self._channels.get(number)
        if channel is None:
            return
        after = pos + 1 + data[pos]
        consumer = data[pos + 1 : after].decode()
        tag, redelivered, size = _DELIVERY.unpack_from(data, after)
        after += 10
        key = after + size
        channel.message = Message(
            number,
            consumer,
            tag,
            bool(redelivered),
            data[after:key].decode(),
            data[key + 1 : key + 1 + data[key]].decode(),
            None,
        )

    def _complete(self, channel: _Channel, body: bytes) -> None:
        message = channel.message
        assert message is not None
        message.body = body
        channel.message = None
        if message.consumer or message.returned is not None:
            self._events.append(message)
        else:
            self._answer(channel, "basic.get-ok", message)

    def _method(self, number: int, channel: _Channel, data: bytes, start: int, stop: int) -> None:
        code = int.from_bytes(data[start : start + 4])
        name = frames.NAMES.get(code)
        if name is None:
            raise DecodeError(f"an unknown AMQP method {code >> 16}.{code & 0xFFFF}")
        arguments = decode_arguments(frames.METHODS[name][2], data[start + 4 : stop], 0)
        if number == 0:
            self._about_connection(name, arguments)
        else:
            self._about_channel(number, channel, name, arguments)

    def _about_channel(self, number: int, channel: _Channel, name: str, arguments: tuple[Any, ...]) -> None:
        match name:
            case "basic.ack":
                self._events.append(Confirm(number, arguments[0], arguments[1], True))
            case "basic.nack":
                self._events.append(Confirm(number, arguments[0], arguments[1], False))
            case "basic.get-ok":
                tag, redelivered, exchange, key, _ = arguments
                channel.message = Message(number, "", tag, redelivered, exchange, key, None)
            case "basic.return":
                _, text, exchange, key = arguments
                channel.message = Message(number, "", 0, False, exchange, key, text)
            case "basic.cancel":
                self._events.append(Cancelled(number, arguments[0]))
            case "channel.close":
                self.outgoing.append(frames.method(number, "channel.close-ok"))
                del self._channels[number]
                error = Refused(arguments[0], arguments[1])
                self._fail(channel, error)
                self._events.append(ChannelClosed(number, error))
            case "channel.close-ok":
                del self._channels[number]
                self._answer(channel, name, arguments)
                self._fail(channel, Lost("the channel was closed before this was answered"))
            case "basic.get-empty":
                self._answer(channel, "basic.get-ok", arguments)
            case "basic.consume-ok" | "basic.cancel-ok":
                self._answer(channel, name, arguments, tag=arguments[0])
            case _:
                self._answer(channel, name, arguments)

    def _answer(self, channel: _Channel, name: str, answer: Any, *, tag: str = "") -> None:
        """Settle the oldest request that is answered like that.

        Replies need not come in the order of requests: that a consumer has begun or ended is said by the
        process of its queue, and RabbitMQ's channel meanwhile answers what was asked behind it.
        """
        keys = (name, _key(name, tag))
        for place, request in enumerate(channel.requests):
            if request.awaited in keys:
                del channel.requests[place]
                request.settle(answer)
                return
        raise DecodeError(f"AMQP answered what nobody had asked: {keys[1]}")

    def _fail(self, channel: _Channel, error: Exception) -> None:
        while channel.requests:
            channel.requests.popleft().settle(None, error)

    # --- the connection itself ---

    def _about_connection(self, name: str, arguments: tuple[Any, ...]) -> None:
        match name:
            case "connection.close":
                self.outgoing.append(frames.method(0, "connection.close-ok"))
                self.lost(Refused(arguments[0], arguments[1]))
            case "connection.close-ok":
                self.agreed = True
                self.lost(Lost("closed"))
            case "connection.blocked":
                self.blocked = arguments[0] or "no reason given"
            case "connection.unblocked":
                self.blocked = None
            case _:
                step = _HANDSHAKE.get((self.state, name))
                if step is None:
                    raise DecodeError(f"AMQP sent {name} in state {self.state!r}")
                getattr(self, step)(*arguments)

    def _start(
        self, _major: int, _minor: int, server: dict[str, Any], mechanisms: bytes, _locales: bytes
    ) -> None:
        login = self._login
        self.server = server
        if login.mechanism not in mechanisms.decode("ascii", "replace").split():
            raise Refused(
                403,
                f"the broker offers the login methods {mechanisms.decode('ascii', 'replace')}, "
                f"not {login.mechanism}",
            )
        ours = {
            "product": "Celeriac",
            "platform": f"Python {platform.python_version()}",
            "connection_name": login.name,
            "capabilities": {
                "authentication_failure_close": True,  # a wrong password is told, not just hung up on
                "basic.nack": True,
                "connection.blocked": True,
                "consumer_cancel_notify": True,
                "publisher_confirms": True,
            },
        }
        secret = f"\0{login.user}\0{login.password}".encode() if login.mechanism == "PLAIN" else b""
        self.outgoing.append(frames.method(0, "connection.start-ok", ours, login.mechanism, secret, "en_US"))
        self.state = "tune"

    def _tune(self, channel_max: int, frame_max: int, heartbeat: int) -> None:
        if frame_max:
            self.frame_max = min(frame_max, frames.FRAME_MAX)
        if heartbeat:
            self.heartbeat_seconds = min(heartbeat, self.heartbeat_seconds)
        self.outgoing.append(
            frames.method(0, "connection.tune-ok", channel_max, self.frame_max, self.heartbeat_seconds)
            + frames.method(0, "connection.open", self._login.vhost, "", False)
        )
        self.state = "opening"

    def _opened(self, _reserved: str) -> None:
        self.state = "open"
        self.ready.settle(None)
