"""The envelope of the Redis transport: one JSON object per message, the body in base64."""

from __future__ import annotations

import base64
import binascii
import uuid
from typing import Any, Final

import msgspec

from celeriac.codecs.jsontext import JsonCodec
from celeriac.errors import DecodeError
from celeriac.message import Envelope, Props

_json: Final = JsonCodec()  # headers may carry Celery's extended types
_fast_encode: Final = msgspec.json.Encoder().encode
_MARK: Final = b'"__type__"'
_PLAIN: Final = frozenset({str, int, bool, type(None)})
_USUAL_CONTAINERS: Final[list[Any]] = [[None, None], {}]  # timelimit and stamps of nearly every message


class _Address(msgspec.Struct):
    exchange: str = ""
    routing_key: str = ""


class _Properties(msgspec.Struct, forbid_unknown_fields=True):
    delivery_info: _Address
    body_encoding: str
    correlation_id: str | None = None
    reply_to: str | None = None
    delivery_mode: int = 2
    priority: int = 0
    delivery_tag: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None


class _Document(msgspec.Struct):
    """The usual document; msgspec undoes the base64 of the body while it reads."""

    body: bytes
    headers: dict[str, Any]
    properties: _Properties
    content_type: str | None = msgspec.field(name="content-type", default=None)
    content_encoding: str | None = msgspec.field(name="content-encoding", default=None)


class _SentAddress(msgspec.Struct):
    exchange: str
    routing_key: str


class _SentProperties(msgspec.Struct, omit_defaults=True):
    correlation_id: str | None
    reply_to: str
    delivery_mode: int
    delivery_info: _SentAddress
    priority: int
    body_encoding: str
    delivery_tag: str
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None


class _SentDocument(msgspec.Struct):
    """What `encode` writes; msgspec makes base64 of the body while it writes."""

    body: bytes
    content_encoding: str | None = msgspec.field(name="content-encoding")
    content_type: str | None = msgspec.field(name="content-type")
    headers: dict[str, Any]
    properties: _SentProperties


_fast_decode: Final = msgspec.json.Decoder(_Document).decode
_KNOWN_PROPERTIES: Final = frozenset(_Properties.__struct_fields__) - {"timestamp"}


def encode(envelope: Envelope, exchange: str, routing_key: str, delivery_tag: str | None = None) -> bytes:
    """Return the document that goes into a Redis list or channel.

    Args:
        envelope: The message.
        exchange: Where it was published to; a restore by another consumer goes there again.
        routing_key: With which key.
        delivery_tag: Unique text; the envelope's own, or a new random one, when None.

    Raises:
        EncodeError: A header has no form in JSON.
    """
    props = envelope.properties
    headers = envelope.headers
    tag = delivery_tag or props.delivery_tag or str(uuid.uuid4())
    # msgspec would write dates, sets and NaN in its own way, so it gets only what cannot hold any: 3 µs
    # against 7 µs for the whole document.
    containers = [value for value in headers.values() if type(value) not in _PLAIN]
    if not props.extra and (not containers or containers == _USUAL_CONTAINERS):
        try:
            return _fast_encode(
                _SentDocument(
                    envelope.body,
                    envelope.content_encoding,
                    envelope.content_type,
                    headers,
                    _SentProperties(
                        props.correlation_id,
                        props.reply_to or "",
                        props.delivery_mode,
                        _SentAddress(exchange, routing_key),
                        props.priority,
                        "base64",
                        tag,
                        props.expiration,
                        props.message_id,
                        props.timestamp,
                    ),
                )
            )
        except (TypeError, ValueError):
            pass  # lone surrogates and odd keys: Python's json has an answer
    return _encode_carefully(envelope, exchange, routing_key, tag)


def _encode_carefully(envelope: Envelope, exchange: str, routing_key: str, delivery_tag: str) -> bytes:
    """Write any envelope, by Celery's rules for JSON."""
    props = envelope.properties
    properties: dict[str, Any] = {
        **props.extra,
        "correlation_id": props.correlation_id,
        "reply_to": props.reply_to or "",
        "delivery_mode": props.delivery_mode,
        "delivery_info": {"exchange": exchange, "routing_key": routing_key},
        "priority": props.priority,
        "body_encoding": "base64",
        "delivery_tag": delivery_tag,
    }
    if props.expiration is not None:
        properties["expiration"] = props.expiration
    if props.message_id is not None:
        properties["message_id"] = props.message_id
    if props.timestamp is not None:
        properties.setdefault("timestamp", props.timestamp)
    return _json.encode(
        {
            "body": base64.b64encode(envelope.body).decode("ascii"),
            "content-encoding": envelope.content_encoding,
            "content-type": envelope.content_type,
            "headers": envelope.headers,
            "properties": properties,
        }
    )


def decode(raw: bytes) -> tuple[Envelope, str, str]:
    """Return the envelope, its exchange and its routing key (both ``""`` when the sender left them out).

    Raises:
        DecodeError: It is no such document; says what is wrong with it.
    """
    if _MARK not in raw:
        try:
            document = _fast_decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass  # unusual, or broken: the slow way knows
        else:
            props = document.properties
            if props.body_encoding == "base64":
                address = props.delivery_info
                envelope = Envelope(
                    headers=document.headers,
                    body=document.body,
                    content_type=document.content_type,
                    content_encoding=document.content_encoding,
                    properties=Props(
                        correlation_id=props.correlation_id,
                        reply_to=props.reply_to,
                        delivery_mode=props.delivery_mode,
                        priority=props.priority,
                        expiration=props.expiration,
                        message_id=props.message_id,
                        timestamp=props.timestamp,
                        delivery_tag=props.delivery_tag,
                    ),
                )
                return envelope, address.exchange, address.routing_key
    return _decode_carefully(raw)


def _decode_carefully(raw: bytes) -> tuple[Envelope, str, str]:
    """Read any document that kombu would read: plain bodies, unknown properties, extended types."""
    document = _json.decode(raw)
    if not isinstance(document, dict) or "body" not in document:
        raise DecodeError("Not a message: the envelope has to be a JSON object with a body")
    properties = _mapping(document, "properties")
    address = _mapping(properties, "delivery_info")
    extra = {key: value for key, value in properties.items() if key not in _KNOWN_PROPERTIES}
    # Others may write something else than seconds there, which stays as it is.
    sent = extra.pop("timestamp") if type(extra.get("timestamp")) is int else None
    envelope = Envelope(
        headers=_mapping(document, "headers"),
        body=_body(document["body"], properties.get("body_encoding")),
        content_type=_text(document.get("content-type")),
        content_encoding=_text(document.get("content-encoding")),
        properties=Props(
            correlation_id=_text(properties.get("correlation_id")),
            reply_to=_text(properties.get("reply_to")),
            delivery_mode=_number(properties.get("delivery_mode"), 2),
            priority=_number(properties.get("priority"), 0),
            expiration=_text(properties.get("expiration")),
            message_id=_text(properties.get("message_id")),
            delivery_tag=_text(properties.get("delivery_tag")),
            timestamp=sent,
            extra=extra,
        ),
    )
    return envelope, _text(address.get("exchange")) or "", _text(address.get("routing_key")) or ""


def _mapping(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DecodeError(f"Not a message: `{key}` of the envelope is {type(value).__name__}, not an object")
    return value


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _number(value: Any, default: int) -> int:
    try:
        return default if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _body(body: Any, encoding: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    if not isinstance(body, str):
        raise DecodeError(f"Not a message: the body is {type(body).__name__}, not text")
    try:
        return base64.b64decode(body) if encoding == "base64" else body.encode("utf-8")
    except (binascii.Error, UnicodeEncodeError) as exc:
        raise DecodeError(f"Not a message: the body is not {encoding or 'utf-8'}: {exc}") from exc
