"""The line between the node and a host: datagrams both ways, in order.

::

    node ── job ──────────────────────▶ host
    node ── order: number, signal ────▶ host     end that job
    node ── stop ─────────────────────▶ host     end when nothing runs
    node ◀── ready ──────────────────── host
    node ◀── heard: number ──────────── host     it has read the order
    node ◀── reports ────────────────── host

What is longer than a datagram may be travels in a memfd beside it. The node keeps the host's end open as
well: what a dead host has not read was never begun, and goes elsewhere.
"""

from __future__ import annotations

import _socket
import socket
from collections.abc import Sequence
from typing import Final

import msgspec

from celeriac.message import Finished, Job, Lost, Report, Started
from celeriac.pools.prefork.inbox import LONG_BYTES, decode_job, encode_job, read_file, receive, send_long


class Order(msgspec.Struct, array_like=True, frozen=True):
    """End a job that runs."""

    number: int
    signal: int


class Stop(msgspec.Struct, frozen=True):
    """End, when nothing runs."""


class Ready(msgspec.Struct, frozen=True):
    """The host takes jobs."""


class Heard(msgspec.Struct, array_like=True, frozen=True):
    """The host has read an order, so it is not stuck itself."""

    number: int


Reports = list[Report]
Word = Job | Order | Stop  # of the node
Answer = Ready | Heard | Reports  # of the host

_JOB, _ORDER, _STOP, _READY, _HEARD, _REPORTS = (b"j", b"o", b"s", b"r", b"h", b"b")
_LONG: Final = b"\0"  # the datagram beside a memfd

_encode = msgspec.msgpack.Encoder().encode
_decode_order = msgspec.msgpack.Decoder(Order).decode
_decode_heard = msgspec.msgpack.Decoder(Heard).decode
_decode_reports = msgspec.msgpack.Decoder(list[Started | Finished | Lost]).decode


class NodeEnd:
    """The node's end. Nothing here ever blocks.

    Raises:
        BlockingIOError: From `give`, `order` and `stop`: the host does not read, and there is no more room.
    """

    def __init__(self) -> None:
        self.near: socket.socket
        self.far: socket.socket
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.near.setblocking(False)  # `far` must stay blocking: the host shares it

    def give(self, job: Job) -> None:
        """Send a job."""
        _send(self.near, _JOB + encode_job(job))

    def order(self, order: Order) -> None:
        """Send an order."""
        _send(self.near, _ORDER + _encode(order))

    def stop(self) -> None:
        """Send the word to end."""
        _send(self.near, _STOP)

    def read(self) -> Answer | None:
        """Return what the host says next; None when there is nothing now."""
        data = _read(self.near)
        if not data:
            return None
        kind, rest = data[:1], data[1:]
        if kind == _REPORTS:
            return _decode_reports(rest)
        return _decode_heard(rest) if kind == _HEARD else Ready()

    def take_back(self) -> list[int]:
        """Return the numbers of the jobs that the host, which is dead, has never read."""
        numbers = []
        while data := _read(self.far):
            if data[:1] == _JOB:
                numbers.append(decode_job(data[1:]).number)
        return numbers

    def close(self) -> None:
        """Close both ends."""
        self.near.close()
        self.far.close()


class HostEnd:
    """The host's end.

    Args:
        far: Its socket.
    """

    def __init__(self, far: socket.socket) -> None:
        # Below what gevent and eventlet patch: we wait for it by their means, and want to be told when there
        # is nothing to read.
        self._far = _socket.socket(far.family, far.type, far.proto, far.detach())
        self._far.setblocking(True)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._far.fileno()

    def read(self) -> Word | None:
        """Return what the node says next; None when there is nothing now."""
        data = _read(self._far)
        if data is None:
            return None
        kind, rest = data[:1], data[1:]
        if kind == _JOB:
            return decode_job(rest)
        return _decode_order(rest) if kind == _ORDER else Stop()  # that is also what the node's end means

    def ready(self) -> None:
        """Say that jobs are taken."""
        _send(self._far, _READY)

    def heard(self, number: int) -> None:
        """Say that an order was read."""
        _send(self._far, _HEARD + _encode(Heard(number)))

    def report(self, reports: Sequence[Report]) -> None:
        """Send reports."""
        _send(self._far, _REPORTS + _encode(reports))


def _send(sock: _socket.socket, data: bytes) -> None:
    if len(data) <= LONG_BYTES:
        sock.send(data)
    else:
        send_long(sock, _LONG, data)


def _read(sock: _socket.socket) -> bytes | None:
    try:
        data, fds = receive(sock, LONG_BYTES, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    return read_file(fds) if fds else data
