"""A connection for threads: one socket that many threads may wait on together.

One of the threads that wait reads for all of them; the others sleep on the condition until what they wait
for has arrived, or until it is their turn to read. So nobody needs a thread of the connection's own, an
answer meets the thread that asked without a detour, and a hundred threads publish in as many round trips as
the broker needs, not one after the other.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from celeriac.errors import DecodeError
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.connection import Connection, Event, Lost, Refused, Request

_CHUNK: Final = 262_144
_LONGEST_SLEEP_SECONDS: Final = 3600.0  # poll() counts milliseconds in 31 bits


class Link:
    """One open connection to RabbitMQ. Every method wants ``turn`` held; waiting lets go of it meanwhile.

    Args:
        address: Where.
        turn: The condition that its owner guards the link with; it outlives the link.
        on_event: Called, with ``turn`` held, for what the broker sends unasked.
    """

    def __init__(
        self, address: Address, turn: threading.Condition, on_event: Callable[[Event], None]
    ) -> None:
        self.address = address
        self.core: Connection = Connection(address.login)
        self.alive: bool = False
        self._turn = turn
        self._on_event = on_event
        self._reading = False  # a thread waits in poll()
        self._sleepers = 0  # threads that wait for that one
        self._socket: socket.socket | None = None
        self._unsent = memoryview(b"")

    def connect(self, until: float) -> None:
        """Connect and log in.

        Args:
            until: The moment to give up (`time.monotonic`).

        Raises:
            BrokerUnreachable: Nobody answers in time, or we are refused.
        """
        seconds = min(until - time.monotonic(), self.address.connect_seconds)
        try:
            if seconds <= 0:
                raise TimeoutError("no time was left to connect")
            self._socket = _open(self.address, seconds)
            self.alive = True
            self._flush(until)
            self.wait_until_ready(min(until, time.monotonic() + seconds))
            if self.core.ready.error is not None:
                raise self.core.ready.error
        except (OSError, Refused, Lost, DecodeError) as exc:
            self.drop(exc)
            raise self.address.unreachable(exc) from exc

    def call(self, until: float, channel: int, name: str, *arguments: Any) -> Any:
        """Ask and return the answer: the reply's arguments, or a `Message`.

        Raises:
            Refused: The broker refused and closed the channel.
            Lost: The connection ended.
            TimeoutError: No answer in time.
        """
        request = self.core.request(channel, name, *arguments)
        self.await_all([request], until)
        return request.answer

    def await_all(self, requests: list[Request], until: float) -> None:
        """Write what is queued and wait for the answers; raises the first error among them (see `call`)."""
        self.send(b"", until)
        self.wait(lambda: all(request.done for request in requests), until)
        for request in requests:
            if request.error is not None:
                raise request.error

    def send(self, data: bytes, until: float) -> None:
        """Write frames.

        Raises:
            Lost: The connection ended.
            TimeoutError: The broker takes no more bytes.
        """
        if data:
            self.core.write(data)
        try:
            self._flush(until)
        except TimeoutError:
            raise
        except OSError as exc:
            self.drop(exc)
            raise self.address.ended(exc) from exc

    def wait(self, ready: Callable[[], bool], until: float) -> None:
        """Read until ``ready()``.

        Raises:
            Lost, Refused: The connection ended.
            TimeoutError: It is not ready in time.
        """
        while not ready():
            if self.core.error is not None:
                raise self.core.error
            remaining = min(until - time.monotonic(), _LONGEST_SLEEP_SECONDS)
            if remaining <= 0:
                raise TimeoutError("no answer in time")
            if self._reading:
                self._sleepers += 1
                try:
                    self._turn.wait(remaining)
                finally:
                    self._sleepers -= 1
                continue
            self._reading = True
            self._turn.release()
            try:
                _poll(self._socket, select.POLLIN, remaining)
            finally:
                self._turn.acquire()
                self._reading = False
                if self._sleepers:
                    self._turn.notify_all()
            self._read()
            if self.core.outgoing and self.core.error is None:
                self.send(b"", until)  # what the machine answers by itself

    def wait_until_ready(self, until: float) -> None:
        """Wait for the login that another thread has begun; see `wait`."""
        self.wait(lambda: self.core.ready.done, until)

    def wait_until_unblocked(self, until: float) -> None:
        """Wait until the broker takes messages again; see `wait`."""
        self.wait(lambda: self.core.blocked is None, until)

    def glance(self) -> bool:
        """Take in what came while nobody listened (a farewell, say), and return whether the link is alive.

        A thread that waits is the reader: taking its bytes away would leave it waiting for ever.
        """
        if not self._reading:
            self._read()
            if self.alive and self.core.outgoing:
                with contextlib.suppress(Lost, TimeoutError):  # then it is not alive any more
                    self.send(b"", time.monotonic() + 0.2)
        return self.alive

    def _read(self) -> None:
        """Take in what has arrived, without waiting; the end of the connection is noted in ``core.error``."""
        while self.alive:
            assert self._socket is not None
            try:
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise Lost("RabbitMQ closed the connection")
                events = self.core.feed(data)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except (OSError, Lost, Refused, DecodeError) as exc:
                self.drop(exc)
                return
            for event in events:
                self._on_event(event)
            if self.core.error is not None:  # it said goodbye
                self._goodbye()
                return
            if len(data) < _CHUNK and self.address.tls is None:
                return

    def close(self, seconds: float = 1.0) -> bool:
        """Close politely and return whether RabbitMQ has agreed: then it has everything that was sent."""
        agreed = False
        if self.alive and self.core.error is None:
            until = time.monotonic() + seconds
            self.core.close()
            with contextlib.suppress(Lost, Refused, TimeoutError):  # it is over either way
                self.send(b"", until)
                self.wait(lambda: self.core.error is not None, until)
                agreed = self.core.agreed
        self.drop(Lost("closed"))
        return agreed

    def drop(self, error: Exception) -> None:
        """Let go of the socket; whoever waits is told why."""
        self.core.lost(self.address.ended(error))
        if self.alive and self._socket is not None:
            with contextlib.suppress(OSError):  # it is not connected any more
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that polls it
        self.abandon()
        self._turn.notify_all()

    def abandon(self) -> None:
        """Close this process's end without a word, as a forked child has to: the socket is its parent's."""
        self.alive = False
        if self._socket is not None:
            self._socket.close()

    def _goodbye(self) -> None:
        """Send the answer to the broker's farewell."""
        with contextlib.suppress(OSError, Lost, Refused):
            self._flush(time.monotonic() + 0.2)
        self.drop(Lost("closed"))

    def _flush(self, until: float) -> None:
        """Write what the core has queued; while the broker does not take it, listen to why."""
        while self.alive and (self._unsent or self.core.outgoing):
            assert self._socket is not None
            if not self._unsent:
                self._unsent = memoryview(self.core.take())
            try:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
                continue
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            remaining = until - time.monotonic()
            if remaining <= 0:
                error = TimeoutError("RabbitMQ takes no more bytes")
                self.drop(error)  # half a frame is written: nothing can follow it
                raise error
            _poll(self._socket, select.POLLOUT | (0 if self._reading else select.POLLIN), remaining)
            if not self._reading:
                self._read()
        if self.core.error is not None and self.core.state == "closed":
            raise self.core.error


def _open(address: Address, seconds: float) -> socket.socket:
    until = time.monotonic() + seconds
    raw = socket.create_connection((address.host, address.port), timeout=seconds)
    try:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _keep_alive(raw)
        if address.tls is not None:
            raw.settimeout(max(0.001, until - time.monotonic()))
            raw = address.tls.wrap_socket(raw, server_hostname=address.server_name)
        raw.setblocking(False)
    except BaseException:
        raw.close()
        raise
    return raw


def _keep_alive(sock: socket.socket) -> None:
    """Have the kernel notice within a minute that the other end is gone: a link has no heartbeats."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # not everywhere
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _poll(sock: socket.socket | None, events: int, seconds: float) -> None:
    """Wait for a socket; returns early when it is closed meanwhile."""
    if sock is None or (number := sock.fileno()) < 0:
        return
    poller = select.poll()
    poller.register(number, events)
    poller.poll(max(1, int(seconds * 1000)))
