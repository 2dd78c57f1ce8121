"""Connections to a Redis server that speak RESP 3 through hiredis, and a stock of idle ones.

redis-py would cost every process 0.3 s and 10 MB at its first connection, and 122 instead of 48 µs for a
round trip on an event loop (`docs/decisions`), so the little that we need of a client is here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NoReturn, cast

from celeriac.errors import ConfigError
from celeriac.net.redis_servers import Servers
from celeriac.net.redis_url import RedisAddress

try:
    import hiredis
except ImportError as _absent:
    raise ConfigError(
        "Redis needs a package that is not installed; get it with: pip install 'celeriac[redis]'"
    ) from _absent

Word = bytes | str | int | float
# The words of one command -> bytes.
pack: Callable[[tuple[Word, ...]], bytes] = cast("Any", hiredis.pack_command)
ReplyError = hiredis.ReplyError  # what the server refused, as an item of an answer
Push = hiredis.PushNotification  # what the server sends unasked: publications, invalidations

MORE: Final = object()  # what the reader returns when an answer is not complete yet
CHUNK_BYTES: Final = 1 << 16
_STALE_SECONDS: Final = 0.5  # a connection idle for longer is looked at before it is trusted with a command
_MASTER_SECONDS: Final = 1.0  # a silent master may be replaced any moment: then the sentinels are asked again
_SLICE_SECONDS: Final = 0.2
_SLICE: Final = struct.pack("ll", 0, int(_SLICE_SECONDS * 1e6))  # a `struct timeval`

# Answers after which the same command may do: the server is starting, stopping, electing or out of room, or
# somebody flushed its scripts, which the next connection brings along.
_PASSING: Final = frozenset(
    [
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "NOSCRIPT",
        "OOM",
        "READONLY",
        "TRYAGAIN",
    ]
)


class RedisFailure(Exception):
    """Root of what goes wrong here; drivers translate it at their edge."""

    passing = True  # whether the same may succeed later


class Unreachable(RedisFailure):
    """Raised when nobody answers, or the server does not let us in."""


class ConnectionLost(RedisFailure):
    """Raised when the connection ended; what was asked last may or may not have been done."""


class NoRedis(ConnectionLost):
    """Raised when what answers is something else."""

    def __init__(self, why: str) -> None:
        super().__init__(f"what answers there does not speak as Redis does ({why})")


class NoAnswer(RedisFailure):
    """Raised when the time ran out; what was asked last may or may not have been done."""


class Refused(RedisFailure):
    """Raised when the server answers with an error; its text is the message."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code: str = text.partition(" ")[0]  # such as WRONGTYPE
        self.passing: bool = self.code in _PASSING


def checked(answers: list[Any]) -> list[Any]:  # Any: whatever Redis answers
    """Return the answers, none of which is an error.

    Raises:
        Refused: One of them is.
    """
    for answer in answers:
        if isinstance(answer, ReplyError):
            raise Refused(str(answer))
    return answers


def demoted(answer: Any) -> bool:  # Any: whatever Redis answers
    """Whether a server refuses to write because it has become a replica; Redis 6 says so of scripts late."""
    return type(answer) is ReplyError and "READONLY" in str(answer)[:200]


class Link:
    """One connection, used by one thread at a time. After any failure it is good for nothing but `close`.

    Python's way to time a socket out costs four more system calls a round trip. So the kernel ends every call
    after a slice of time, and only what is left of the last slice is timed by Python.
    """

    def __init__(self, address: RedisAddress, sock: socket.socket) -> None:
        self.address = address
        self.socket = sock
        self._sliced = address.tls is None  # TLS does not know what to make of a call that the kernel ends
        self._blocking = False
        if self._sliced:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SLICE)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SLICE)
        self.reader: hiredis.Reader = hiredis.Reader(notEnoughData=MORE, protocolError=NoRedis)
        self.pushes: deque[Any] = deque()  # Any: a Push, whose items are whatever was sent
        self.used_at: float = time.monotonic()
        self.client_id = 0  # the server's number for this connection
        self.demoted: bool = False  # the server has become a replica: another connection is needed
        self.farewell: bytes = b""  # commands to send before the next ones, answered by pushes only

    def __del__(self) -> None:
        """Close quietly: the thread or loop that owned it may have ended without a word."""
        self.socket.close()

    def call(self, data: bytes, count: int, until: float) -> list[Any]:  # Any: whatever Redis answers
        """Send packed commands and return their answers, errors among them as `ReplyError` items.

        Args:
            data: The commands.
            count: How many answers there will be.
            until: When to give up; `time.monotonic` seconds.

        Raises:
            ConnectionLost: It ended before all answers were there.
            NoAnswer: The time ran out.
        """
        self.send(data, until)
        answers: list[Any] = []
        while len(answers) < count:
            answer = self.reader.gets()
            if answer is MORE:
                self.receive(until)
            elif type(answer) is Push:
                self.pushes.append(answer)
            else:
                self.demoted = self.demoted or demoted(answer)
                answers.append(answer)
        self.used_at = time.monotonic()
        return answers

    def send(self, data: bytes, until: float) -> None:
        """Send packed commands."""
        if self.farewell:
            data, self.farewell = self.farewell + data, b""
        rest: bytes | memoryview = data
        while rest:
            self._end_by(until)
            try:
                sent = self.socket.send(rest)
            except BlockingIOError:  # a slice of time is over
                continue
            except OSError as exc:
                _fail(exc)
            if sent == len(rest):
                return
            rest = memoryview(rest)[sent:]

    def receive(self, until: float) -> None:
        """Wait for more bytes and feed them to the reader."""
        while True:
            self._end_by(until)
            try:
                data = self.socket.recv(CHUNK_BYTES)
            except BlockingIOError:  # a slice of time is over
                continue
            except OSError as exc:
                _fail(exc)
            if not data:
                raise ConnectionLost("the server closed the connection")
            self.reader.feed(data)
            return

    def _end_by(self, until: float) -> None:
        """Have the next call of the socket end by then, or after a slice of time."""
        left = until - time.monotonic()
        if left <= 0:
            raise NoAnswer("the time ran out")
        if not self._sliced or left <= _SLICE_SECONDS:
            self.socket.settimeout(left)
            self._blocking = False
        elif not self._blocking:
            self.socket.settimeout(None)
            self._blocking = True

    def push(self, until: float) -> Any:  # Any: a Push
        """Return the next message that the server sends unasked; answers in between are dropped.

        Raises:
            ConnectionLost: It ended.
            NoAnswer: None came in time; the connection is still good.
        """
        while not self.pushes:
            answer = self.reader.gets()
            if answer is MORE:
                self.receive(until)
            elif type(answer) is Push:
                return answer
        return self.pushes.popleft()

    def gone(self) -> bool:
        """Whether the other end has gone away while nobody looked."""
        try:
            self.socket.setblocking(False)
            self._blocking = False
            while data := self.socket.recv(CHUNK_BYTES):
                self.reader.feed(data)  # late publications to somebody who waits no more
        except BlockingIOError:
            return False
        except OSError as exc:
            return type(exc).__name__ != "SSLWantReadError"  # TLS's way to say that there is nothing
        return True

    def close(self) -> None:
        """Close it."""
        self.socket.close()


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise NoAnswer("the time ran out")
    return left


def _fail(exc: OSError) -> NoReturn:
    if isinstance(exc, TimeoutError):
        raise NoAnswer("no answer in time") from exc
    raise ConnectionLost(exc.strerror or str(exc) or type(exc).__name__) from exc


def open_link(servers: Servers, until: float) -> Link:
    """Connect to the first of the servers that answers and log in.

    Args:
        servers: Where to try; each gets its share of the time.
        until: When to give up; `time.monotonic` seconds.

    Raises:
        Unreachable: None of them would have us; says why.
    """
    failure: RedisFailure | None = None
    for left, address in servers.tries():
        now = time.monotonic()
        try:
            return _open(address, now + min((until - now) / left, address.connect_seconds))
        except RedisFailure as exc:
            failure = exc
        except OSError as exc:
            failure = Unreachable(exc.strerror or str(exc) or type(exc).__name__)
            failure.__cause__ = exc
    assert failure is not None, "there is one at least"
    raise Unreachable(str(failure)) from failure


def _open(address: RedisAddress, until: float) -> Link:
    return _connect(address, until) if address.sentinels is None else _find(address.sentinels, until)


def _find(sentinels: Any, until: float) -> Link:  # Any: as in RedisAddress
    while True:
        master, sentinel = sentinels.master(until)
        try:
            return _connect(master, min(until, time.monotonic() + _MASTER_SECONDS))
        except (NoAnswer, TimeoutError) as exc:
            sentinels.doubt(sentinel)
            if time.monotonic() >= until:
                raise Unreachable(f"the master at {master.host}:{master.port} does not answer") from exc
        except (OSError, RedisFailure) as exc:
            sentinels.doubt(sentinel)
            why = (isinstance(exc, OSError) and exc.strerror) or str(exc) or type(exc).__name__
            raise Unreachable(f"the master at {master.host}:{master.port}: {why}") from exc


def _connect(address: RedisAddress, until: float) -> Link:
    if address.socket_path is not None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(_left(until))
            sock.connect(address.socket_path)
        except BaseException:
            sock.close()
            raise
    else:
        # As bytes where it can be: of text Python makes IDNA first, with tables of 0.3 MB.
        host: Any = address.host.encode() if address.host.isascii() else address.host  # Any: so say the stubs
        sock = socket.create_connection((host, address.port), timeout=_left(until))
    try:
        if address.socket_path is None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.keepalive:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if address.tls is not None:
            sock = address.tls.wrap_socket(sock, server_hostname=address.host)
        link = Link(address, sock)
        _log_in(link, until)
    except BaseException:
        sock.close()
        raise
    return link


def _log_in(link: Link, until: float) -> None:
    address = link.address
    hello: list[str | int] = ["HELLO", 3]
    if address.password is not None:
        hello += ["AUTH", address.user or "default", address.password]
    if address.client_name:
        hello += ["SETNAME", address.client_name]
    data = pack(tuple(hello))
    if address.database:
        data += pack(("SELECT", address.database))
    try:
        answers = checked(link.call(data, 2 if address.database else 1, until))
    except Refused as exc:
        text = str(exc)
        if text.startswith("ERR unknown command") and "HELLO" in text.upper():
            text = "it does not know HELLO; Redis 6 or newer is needed"
        raise Unreachable(text) from exc
    try:
        link.client_id = answers[0][b"id"]
    except (TypeError, KeyError, IndexError) as exc:
        raise NoRedis(f"its greeting is {answers[0]!r:.100}") from exc
    if address.must_lead and answers[0].get(b"role") != b"master":
        raise Unreachable("it is a replica, not the master")


class Links:
    """The idle connections of this process to one server; safe for threads.

    A thread takes one, uses it and gives it back, so there are as many as there are threads that talk at the
    same moment. A forked child leaves its parent's connections alone and opens its own.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._idle: deque[Link] = deque()  # append and pop are atomic: no lock
        self._leaving: deque[Link] = deque()  # the idle ones with a farewell to say, which are taken first
        _stocks.add(self)

    def take(self, until: float) -> Link:
        """Return a connection, a new one when none is idle.

        Args:
            until: When to give up connecting; `time.monotonic` seconds.

        Raises:
            Unreachable: Nobody would have us.
        """
        for stock in (self._leaving, self._idle):
            while stock:
                try:
                    link = stock.pop()
                except IndexError:  # another thread was quicker
                    break
                if time.monotonic() - link.used_at < _STALE_SECONDS or not link.gone():
                    link.pushes.clear()  # for somebody who does not wait any more
                    return link
                link.close()
        return open_link(self._servers, until)

    def give(self, link: Link) -> None:
        """Take back a connection that works."""
        if link.demoted:  # as are the others
            link.close()
            self.close()
            return
        (self._leaving if link.farewell else self._idle).append(link)

    def call(self, data: bytes, count: int, until: float) -> list[Any]:  # Any: whatever Redis answers
        """Send packed commands on some connection and return the answers, as `Link.call` does.

        Raises:
            Unreachable: There is no connection to be had.
            ConnectionLost: It ended before all answers were there.
            NoAnswer: The time ran out.
        """
        link = self.take(until)
        asked_at = time.monotonic()
        try:
            answers = link.call(data, count, until)
        except BaseException as exc:
            link.close()
            if isinstance(exc, NoAnswer) and time.monotonic() - asked_at >= link.address.answer_seconds:
                self.close()  # the others would keep their users waiting as well
            raise
        self.give(link)
        return answers

    def close(self) -> None:
        """Close the idle connections; the next `take` opens a new one."""
        for stock in (self._leaving, self._idle):
            while stock:
                with contextlib.suppress(IndexError):
                    stock.pop().close()


_stocks: weakref.WeakSet[Links] = weakref.WeakSet()


def _after_fork() -> None:
    for stock in list(_stocks):
        stock.close()  # our copies of the parent's descriptors; the parent's connections stay open


os.register_at_fork(after_in_child=_after_fork)
