"""A connection to a Redis server for an event loop: pipelined calls, and what the server sends unasked."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from celeriac.net.lane import Lane
from celeriac.net.redis_link import (
    CHUNK_BYTES,
    MORE,
    ConnectionLost,
    Link,
    NoAnswer,
    NoRedis,
    Push,
    RedisFailure,
    ReplyError,
    demoted,
    open_link,
)
from celeriac.net.redis_servers import Servers
from celeriac.net.redis_url import RedisAddress

Answers = list[Any]  # Any: whatever Redis answers; errors are `ReplyError` items


class _Call(msgspec.Struct):
    done: Callable[[Answers | RedisFailure], None]
    count: int
    sent_at: float  # the loop's time
    answers: Answers


class Stream:
    """One connection on the running loop. After a failure it is good for nothing; open another one.

    Duties: 1. write commands at once and give their answers in order, however many calls are under way;
    2. pass on what the server sends unasked; 3. tell once when the connection ends or an answer is overdue.

    Args:
        link: A connection that is logged in and idle; it belongs to the stream from now on.
        on_push: Called with every message that the server sends unasked.
        on_lost: Called once when the stream fails; not when it is closed.
    """

    def __init__(
        self, link: Link, on_push: Callable[[Any], None], on_lost: Callable[[RedisFailure], None]
    ) -> None:
        self._link = link
        self._on_push = on_push
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._pending: deque[_Call] = deque()
        self._unsent = bytearray()
        self._watch: asyncio.TimerHandle | None = None
        self._failure: RedisFailure | None = None
        self._patience = link.address.answer_seconds
        self._heard_at = 0.0  # the loop's time
        self.answered_at: float = 0.0  # when a call has got its last answer; the loop's time
        link.socket.setblocking(False)
        self._loop.add_reader(link.socket, self._readable)

    @property
    def alive(self) -> bool:
        """Whether it can still be used."""
        return self._failure is None

    @property
    def address(self) -> RedisAddress:
        """The server at the other end."""
        return self._link.address

    @property
    def client_id(self) -> int:
        """The server's number for this connection."""
        return self._link.client_id

    def call(self, data: bytes, count: int) -> asyncio.Future[Answers]:
        """Send packed commands; the future gets their answers.

        To cancel the future is harmless: the answers are then dropped when they come.

        Args:
            data: The commands.
            count: How many answers there will be.

        Raises:
            RedisFailure: The stream has failed before.
        """
        future: asyncio.Future[Answers] = self._loop.create_future()
        self.ask(data, count, functools.partial(_resolve, future))
        return future

    def ask(self, data: bytes, count: int, done: Callable[[Answers | RedisFailure], None]) -> None:
        """Send packed commands; ``done`` is called with their answers, or with what went wrong.

        It is called while the answer is read, which saves two turns of the loop (20 µs) against `call`, and
        it is called whatever becomes of the task that asked. It must not raise.

        Raises:
            RedisFailure: The stream has failed before.
        """
        if self._failure is not None:
            raise self._failure
        self._pending.append(_Call(done, count, self._loop.time(), []))
        if self._watch is None:
            self._watch = self._loop.call_later(self._patience, self._look)
        self._write(data)

    def tell(self, data: bytes) -> None:
        """Send packed commands that are answered by messages to `on_push` only, such as subscriptions."""
        if self._failure is None:
            self._write(data)

    def close(self, failure: RedisFailure | None = None) -> None:
        """Close the connection; calls under way get this failure, or `ConnectionLost`."""
        if self._failure is None:
            self._end(failure or ConnectionLost("closed here"))

    def close_from_anywhere(self) -> None:
        """Close it, also from another thread than the loop's and when the loop is no more."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here or not self._loop.is_running():
            self.close()
        else:
            self._loop.call_soon_threadsafe(self.close)

    def _write(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._link.socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as exc:
            if not _wants_more(exc):
                self._fail(ConnectionLost(exc.strerror or str(exc)), exc)
                return
            sent = 0
        if sent < len(data):
            self._unsent += memoryview(data)[sent:]
            self._loop.add_writer(self._link.socket, self._writable)

    def _writable(self) -> None:
        try:
            sent = self._link.socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            if not _wants_more(exc):
                self._fail(ConnectionLost(exc.strerror or str(exc)), exc)
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._link.socket)

    def _readable(self) -> None:
        link = self._link
        try:
            data = link.socket.recv(CHUNK_BYTES)
            if link.address.tls is not None:
                while left := link.socket.pending():  # type: ignore[attr-defined]  # of SSLSocket
                    data += link.socket.recv(left)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            if not _wants_more(exc):
                self._fail(ConnectionLost(exc.strerror or str(exc)), exc)
            return
        if not data:
            self._fail(ConnectionLost("the server closed the connection"))
            return
        self._heard_at = self._loop.time()
        link.reader.feed(data)
        try:
            self._hand_out()
        except NoRedis as exc:
            self._fail(exc)

    def _hand_out(self) -> None:
        gets = self._link.reader.gets
        while self._failure is None and (answer := gets()) is not MORE:
            if type(answer) is Push:
                self._on_push(answer)
                continue
            if not self._pending:
                self._fail(ConnectionLost("the server answered what nobody asked"))
                return
            call = self._pending[0]
            call.answers.append(answer)
            if len(call.answers) == call.count:
                self._pending.popleft()
                self.answered_at = self._heard_at
                call.done(call.answers)
            if type(answer) is ReplyError and demoted(answer):
                self._fail(ConnectionLost("the server has become a replica"))

    def _look(self) -> None:
        """Fail when the oldest call has waited too long, else look again when it will have."""
        self._watch = None
        if self._pending:
            # A huge answer that is still coming in is not overdue.
            left = max(self._pending[0].sent_at, self._heard_at) + self._patience - self._loop.time()
            if left <= 0:
                self._fail(NoAnswer(f"no answer within {self._patience:g} s"))
            else:
                self._watch = self._loop.call_later(left, self._look)

    def _fail(self, failure: RedisFailure, cause: BaseException | None = None) -> None:
        if self._failure is None:
            failure.__cause__ = cause
            self._end(failure)
            self._on_lost(failure)

    def _end(self, failure: RedisFailure) -> None:
        self._failure = failure
        if not self._loop.is_closed():
            self._loop.remove_reader(self._link.socket)
            self._loop.remove_writer(self._link.socket)
        if self._watch is not None:
            self._watch.cancel()
        self._link.close()
        while self._pending:
            self._pending.popleft().done(failure)


def _resolve(future: asyncio.Future[Answers], result: Answers | RedisFailure) -> None:
    if future.done():
        return
    if isinstance(result, RedisFailure):
        future.set_exception(result)
    else:
        future.set_result(result)


def _wants_more(exc: OSError) -> bool:
    """Whether it is only TLS's way to say "not now"; by name, for not everybody has to load ssl."""
    return type(exc).__name__ in ("SSLWantReadError", "SSLWantWriteError")


async def open_stream(
    servers: Servers,
    on_push: Callable[[Any], None],
    on_lost: Callable[[RedisFailure], None],
) -> Stream:
    """Connect without blocking the loop; the other arguments are those of `Stream`.

    Raises:
        Unreachable: None of the servers would have us.
    """
    lane = Lane("celeriac-redis-connect")
    opened: list[Link] = []

    def open_one() -> None:
        opened.append(open_link(servers, time.monotonic() + servers.connect_seconds))

    def close_all() -> None:
        while opened:
            opened.pop().close()

    try:
        await lane.run(open_one)
    except asyncio.CancelledError:
        lane.post(close_all, lambda *answer: None)  # in line: it may still be opening
        raise
    finally:
        lane.close(timeout_seconds=0)
    (link,) = opened

    def lost(failure: RedisFailure) -> None:
        if isinstance(failure, NoAnswer):
            servers.skip(link.address)  # it may take a connection, and again not answer
        on_lost(failure)

    return Stream(link, on_push, lost)


class Streams:
    """The one connection of an owner that is used from a loop; opened at first use and after it was lost.

    Args:
        servers: The servers to try.
        on_push: Called with what the server sends unasked.
        on_lost: Called when the connection fails.
    """

    def __init__(
        self,
        servers: Servers,
        on_push: Callable[[Any], None] = lambda push: None,
        on_lost: Callable[[RedisFailure], None] = lambda failure: None,
    ) -> None:
        self._servers = servers
        self._on_push = on_push
        self._on_lost = on_lost
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stream: Stream | None = None
        self._opening = asyncio.Lock()
        self._closings = 0

    async def get(self) -> Stream:
        """Return the connection of the running loop.

        Raises:
            Unreachable: There is none to be had.
            ConnectionLost: `close` was called meanwhile.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self.close()
            self._loop, self._opening = loop, asyncio.Lock()
        stream = self._stream
        if stream is not None and stream.alive:
            return stream
        async with self._opening:
            if self._stream is None or not self._stream.alive:
                closings = self._closings
                stream = await open_stream(self._servers, self._on_push, self._on_lost)
                if closings != self._closings:  # meanwhile: nobody would close this one
                    stream.close()
                    raise ConnectionLost("closed here")
                self._stream = stream
            return self._stream

    def current(self) -> Stream | None:
        """Return the connection, when there is one."""
        return self._stream

    def close(self) -> None:
        """Close the connection; from any thread."""
        self._closings += 1
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close_from_anywhere()
