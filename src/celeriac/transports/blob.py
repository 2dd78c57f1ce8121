"""An envelope as one compact piece of bytes, for the transports that are ours alone (SQLite, memory).

msgpack of the envelope's fields in their order: 1.6 µs to write, 2.5 µs to read, and no base64 around the
body as in the Redis form.
"""

from __future__ import annotations

import msgspec

from celeriac.errors import EncodeError
from celeriac.message import Envelope, Props

_Row = tuple[
    dict[str, object],
    bytes,
    str | None,
    str | None,
    str | None,
    str | None,
    int,
    int,
    str | None,
    str | None,
    str | None,
    dict[str, object] | None,
]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Row).decode


def pack(envelope: Envelope) -> bytes:
    """Return the envelope as bytes that `unpack` turns back into it.

    Raises:
        EncodeError: A header or property is of a type that has no form in msgpack.
    """
    props = envelope.properties
    try:
        return _encode(
            (
                envelope.headers,
                envelope.body,
                envelope.content_type,
                envelope.content_encoding,
                props.correlation_id,
                props.reply_to,
                props.delivery_mode,
                props.priority,
                props.expiration,
                props.message_id,
                props.delivery_tag,
                _with_timestamp(props) if props.timestamp is not None else props.extra or None,
            )
        )
    except (TypeError, ValueError, OverflowError) as exc:
        name = envelope.headers.get("task", "?")
        raise EncodeError(f"The headers or properties of message {name!r} cannot be stored: {exc}") from exc


def _with_timestamp(props: Props) -> dict[str, object]:
    """Return the extra properties with the time of sending: files of before it was written stay readable."""
    return {"timestamp": props.timestamp, **props.extra}


def unpack(data: bytes) -> Envelope:
    """Return the envelope that `pack` wrote.

    Raises:
        ValueError: These bytes are something else.
    """
    row = _decode(data)
    extra = row[11] or {}
    sent = extra.pop("timestamp") if type(extra.get("timestamp")) is int else None
    return Envelope(
        headers=row[0],
        body=row[1],
        content_type=row[2],
        content_encoding=row[3],
        properties=Props(
            correlation_id=row[4],
            reply_to=row[5],
            delivery_mode=row[6],
            priority=row[7],
            expiration=row[8],
            message_id=row[9],
            delivery_tag=row[10],
            timestamp=sent,
            extra=extra,
        ),
    )


def unpack_or_defect(data: bytes) -> tuple[Envelope, str | None]:
    """Return the envelope and None, or the raw bytes as a body and what is wrong with them."""
    try:
        return unpack(data), None
    except ValueError as exc:
        return raw_envelope(data), f"not an envelope: {exc}"


def raw_envelope(data: bytes) -> Envelope:
    """Return an envelope around bytes that could not be read as one."""
    return Envelope(headers={}, body=data, content_type=None, content_encoding=None, properties=Props())
