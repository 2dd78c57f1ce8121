"""AMQP 0-9-1 frames: the table of methods, and the frames that a client writes."""

from __future__ import annotations

import struct
from typing import Any, Final

from celeriac.transports.amqp.tables import encode_arguments

FRAME_MAX: Final = 131_072  # what we ask for, in bytes, frame head and end included
FRAME_END: Final = 0xCE
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
HEARTBEAT_FRAME: Final = struct.pack(">BHIB", HEARTBEAT, 0, 0, FRAME_END)

HEAD: Final = struct.Struct(">BHI")  # kind, channel, size of the payload
_METHOD_ID: Final = struct.Struct(">HH")
_CONTENT_HEAD: Final = struct.Struct(">BHIHHQ")
_ACK: Final = struct.Struct(">BHIHHQBB")

# Class, method and arguments of each method: o s l q = 1 2 4 8 bytes, S = short string, L = long string,
# F = field table, b = a flag of one bit. Reserved arguments are written out: callers give 0, "" or False.
METHODS: Final[dict[str, tuple[int, int, str]]] = {
    "connection.start": (10, 10, "ooFLL"),
    "connection.start-ok": (10, 11, "FSLS"),
    "connection.tune": (10, 30, "sls"),
    "connection.tune-ok": (10, 31, "sls"),
    "connection.open": (10, 40, "SSb"),
    "connection.open-ok": (10, 41, "S"),
    "connection.close": (10, 50, "sSss"),
    "connection.close-ok": (10, 51, ""),
    "connection.blocked": (10, 60, "S"),
    "connection.unblocked": (10, 61, ""),
    "channel.open": (20, 10, "S"),
    "channel.open-ok": (20, 11, "L"),
    "channel.close": (20, 40, "sSss"),
    "channel.close-ok": (20, 41, ""),
    "exchange.declare": (40, 10, "sSSbbbbbF"),
    "exchange.declare-ok": (40, 11, ""),
    "exchange.delete": (40, 20, "sSbb"),
    "exchange.delete-ok": (40, 21, ""),
    "exchange.bind": (40, 30, "sSSSbF"),
    "exchange.bind-ok": (40, 31, ""),
    "queue.declare": (50, 10, "sSbbbbbF"),
    "queue.declare-ok": (50, 11, "Sll"),
    "queue.bind": (50, 20, "sSSSbF"),
    "queue.bind-ok": (50, 21, ""),
    "queue.purge": (50, 30, "sSb"),
    "queue.purge-ok": (50, 31, "l"),
    "queue.unbind": (50, 50, "sSSSF"),
    "queue.unbind-ok": (50, 51, ""),
    "queue.delete": (50, 40, "sSbbb"),
    "queue.delete-ok": (50, 41, "l"),
    "basic.qos": (60, 10, "lsb"),
    "basic.qos-ok": (60, 11, ""),
    "basic.consume": (60, 20, "sSSbbbbF"),
    "basic.consume-ok": (60, 21, "S"),
    "basic.cancel": (60, 30, "Sb"),
    "basic.cancel-ok": (60, 31, "S"),
    "basic.publish": (60, 40, "sSSbb"),
    "basic.return": (60, 50, "sSSS"),
    "basic.deliver": (60, 60, "SqbSS"),
    "basic.get": (60, 70, "sSb"),
    "basic.get-ok": (60, 71, "qbSSl"),
    "basic.get-empty": (60, 72, "S"),
    "basic.ack": (60, 80, "qb"),
    "basic.nack": (60, 120, "qbb"),
    "tx.select": (90, 10, ""),
    "tx.select-ok": (90, 11, ""),
    "tx.commit": (90, 20, ""),
    "tx.commit-ok": (90, 21, ""),
    "confirm.select": (85, 10, "b"),
    "confirm.select-ok": (85, 11, ""),
}
NAMES: Final = {(kind << 16) | number: name for name, (kind, number, _) in METHODS.items()}


def method(channel: int, name: str, *arguments: Any) -> bytes:
    """Return the frame of a method, such as ``method(1, "basic.qos", 0, 10, True)``.

    Raises:
        EncodeError: An argument is too long, or a table holds what AMQP has no form for.
    """
    kind, number, forms = METHODS[name]
    payload = _METHOD_ID.pack(kind, number) + encode_arguments(forms, arguments)
    return HEAD.pack(METHOD, channel, len(payload)) + payload + b"\xce"


def content(channel: int, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """Return the header and body frames that follow ``basic.publish``."""
    size = len(body)
    head = _CONTENT_HEAD.pack(HEADER, channel, 12 + len(properties), 60, 0, size)
    if not size:
        return b"%b%b\xce" % (head, properties)
    piece = frame_max - 8
    if size <= piece:
        return b"%b%b\xce%b%b\xce" % (head, properties, HEAD.pack(BODY, channel, size), body)
    parts = [head, properties, b"\xce"]
    for start in range(0, size, piece):
        part = body[start : start + piece]
        parts += (HEAD.pack(BODY, channel, len(part)), part, b"\xce")
    return b"".join(parts)


def ack(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    """Return ``basic.ack`` for one delivery, or for it and all before it that are outstanding."""
    return _ACK.pack(METHOD, channel, 13, 60, 80, tag, multiple, FRAME_END)


def nack(channel: int, tag: int, *, requeue: bool, multiple: bool = False) -> bytes:
    """Return ``basic.nack``; tag 0 with ``multiple`` means everything outstanding on the channel."""
    return _ACK.pack(METHOD, channel, 13, 60, 120, tag, multiple | requeue << 1, FRAME_END)
