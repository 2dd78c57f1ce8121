"""The inbox of a child: one datagram for each job, so that one job is either read or still there to recall.

::

    parent                                        child
    near ── number, job ───────────────────────▶  far      (in a memfd beside the datagram when it is long)
    near ── one byte ──────────────────────────▶  far      are you there? (read, and nothing else)
    near ── nothing ───────────────────────────▶  far      finish what you have and end
    near ◀── tail of the outbox ────────────────  far      there are reports on the board
    near ◀── nothing ───────────────────────────  far      a report too long for the board, in a memfd

The parent keeps ``far`` open as well. That is how it takes back what a child has not read, even a dead one:
whoever reads a datagram first has it, the kernel sees to that.
"""

from __future__ import annotations

import _socket
import array
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

import msgspec

from celeriac.message import Job

LONG_BYTES = 64 * 1024  # longer ones travel as a memfd: a socket's buffer holds about 200 kB
INFLIGHT_BYTES = 80 * 1024  # with so much unread nothing more is sent: the buffer shall never be full
_READ_BYTES = LONG_BYTES + 1024

_NUMBER = struct.Struct("=Q")
_PROBE: Final = b"?"
_FD_SPACE = socket.CMSG_SPACE(4)
_encode = msgspec.msgpack.Encoder().encode
decode_job: Callable[[bytes | memoryview], Job] = msgspec.msgpack.Decoder(Job).decode

_LARGEST_INT: Final = 2**63 - 1
_FOREIGN: Final = (
    "headers",
    "properties",
    "delivery_info",
    "reply_to",
    "correlation_id",
)  # as others wrote it

STOP: Final = object()


class Inbox:
    """The parent's side of one child's sockets. Nothing here ever blocks."""

    def __init__(self) -> None:
        self.near: socket.socket
        self.far: socket.socket
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.near.setblocking(False)  # `far` must stay blocking: the child shares it

    def put(self, job: Job) -> int:
        """Send a job and return how many bytes of the socket's buffer it takes.

        Raises:
            BlockingIOError: There is no room for it; it was not sent.
        """
        data = encode_job(job)
        number = _NUMBER.pack(job.number)
        if len(data) <= LONG_BYTES:
            self.near.send(number + data)
            return len(data)
        send_long(self.near, number, data)
        return 0

    def put_stop(self) -> None:
        """Tell the child to end when it has done what it was given."""
        self.near.send(b"")

    def probe(self) -> None:
        """Have something lie there that a child removes as soon as it reads at all; see `unread`."""
        self.near.send(_PROBE)

    def read(self) -> tuple[int | None, bytes | None] | None:
        """Return one of the child's datagrams, (tail, None) or (None, report); None when there is none."""
        try:
            data, fds = receive(self.near, _NUMBER.size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        if fds:
            return None, read_file(fds)
        if len(data) != _NUMBER.size:
            return None
        return _NUMBER.unpack(data)[0], None

    def recall(self) -> list[int]:
        """Take back what the child has not read and return the numbers of those jobs."""
        numbers: list[int] = []
        probed = False
        while data := self._take_back():  # empty: closed, or a word to stop, behind which nothing is sent
            if data == _PROBE:
                probed = True
            else:
                numbers.append(_NUMBER.unpack(data)[0])
        if probed:
            self.probe()  # the child has not answered yet
        return numbers

    def unread(self) -> bool:
        """Return whether something lies there that the child has not read."""
        try:
            data, fds = receive(self.far, 1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return False
        for fd in fds:
            os.close(fd)
        return bool(data)

    def _take_back(self) -> bytes | None:
        try:
            data, fds = receive(self.far, _NUMBER.size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        for fd in fds:
            os.close(fd)
        return data

    def close(self) -> None:
        """Close both ends."""
        self.near.close()
        self.far.close()


class Mail:
    """The child's side.

    Args:
        far: The child's end.
    """

    def __init__(self, far: socket.socket) -> None:
        self._far = far
        self._buffer = bytearray(_READ_BYTES)
        self._buffers = [self._buffer]
        self._view = memoryview(self._buffer)
        self._news = select.poll()
        self._news.register(far, select.POLLIN)

    def poll(self) -> Job | object | None:
        """Return the next job, STOP, or None when there is nothing now."""
        try:
            return self._read(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def wait(self) -> Job | object:
        """Return the next job or STOP, as soon as there is one."""
        return self._read(0)

    def comes(self, seconds: float) -> bool:
        """Return as soon as there is something to read, or False when that takes too long."""
        return bool(self._news.poll(seconds * 1000))

    def ring(self, tail: int) -> None:
        """Tell the parent that the outbox has been written up to ``tail``."""
        self._far.send(_NUMBER.pack(tail))

    def send_report(self, report: bytes) -> None:
        """Send a report that is too long for the outbox."""
        send_long(self._far, b"", report)

    def _read(self, flags: int) -> Job | object:
        # 5.6 µs with its send; plain recv is no faster and would lose the memfd of a long job.
        size, ancillary, _, _ = self._far.recvmsg_into(self._buffers, _FD_SPACE, flags)
        if ancillary:
            return decode_job(read_file(_fds(ancillary)))
        if size == len(_PROBE):
            return self._read(flags)
        if not size:
            return STOP  # told so, or the parent is gone
        return decode_job(self._view[_NUMBER.size : size])


def encode_job(job: Job) -> bytes:
    """Return a job as bytes, whatever its message's headers are."""
    try:
        return _encode(job)
    except (OverflowError, UnicodeEncodeError):  # JSON can say more than our datagrams
        return _encode(msgspec.structs.replace(job, **{f: _tamed(getattr(job, f)) for f in _FOREIGN}))


def _tamed(value: Any) -> Any:  # Any: header values of any peer
    """Return headers with what has no form in a datagram as text, so that no message harms anybody."""
    if isinstance(value, dict):
        return {_tamed(key): _tamed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_tamed(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return str(value) if isinstance(value, int) and abs(value) > _LARGEST_INT else value


def send_long(sock: _socket.socket, head: bytes, data: bytes) -> None:
    """Send bytes of any length in a memfd, with a datagram that has ``head``."""
    fd = os.memfd_create("celeriac", os.MFD_CLOEXEC)
    try:
        written = 0
        view = memoryview(data)
        while written < len(data):
            written += os.write(fd, view[written:])
        # A datagram needs a byte for the descriptor to travel with.
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
        sock.sendmsg([head or b"\0"], [rights])
    finally:
        os.close(fd)


def receive(sock: _socket.socket, size: int, flags: int) -> tuple[bytes, list[int]]:
    """Receive a datagram, of which ``size`` bytes are of interest, and the descriptors that came with it."""
    data, ancillary, _, _ = sock.recvmsg(size, _FD_SPACE, flags)
    return data, _fds(ancillary)


def _fds(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds: list[int] = []
    for _, kind, data in ancillary:
        if kind == socket.SCM_RIGHTS:
            fds.extend(memoryview(data).cast("i"))
    return fds


def read_file(fds: list[int]) -> bytes:
    """Read and close the one memfd that came."""
    (fd,) = fds
    with open(fd, "rb", buffering=0) as file:
        file.seek(0)  # the offset is the writer's, at the end
        return file.read()
