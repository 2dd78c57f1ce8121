"""What a message says of its own travels: whether it was redelivered, how often, and before when not to run.

All of it stands where kombu keeps its ``redelivered``, in ``properties.delivery_info``, or is a property of
its own. Real Celery workers read the first and step over the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from celeriac.errors import DecodeError
from celeriac.message import Delivery, Envelope, Props
from celeriac.rounds import FAIR_KEY_HEADER, fair_key
from celeriac.wire import virtual

NOT_BEFORE: Final = "celeriac_not_before"  # a property: epoch seconds
_REDELIVERED: Final = b'"redelivered"'
_FAIR_KEY: Final = FAIR_KEY_HEADER.encode()
_write: Final = msgspec.json.Encoder().encode


class _Marks(msgspec.Struct, frozen=True):
    redelivered: bool = False
    attempt: int = 0


class _Properties(msgspec.Struct, frozen=True):
    delivery_info: _Marks = _Marks()


class _Document(msgspec.Struct):
    properties: _Properties = _Properties()


_read_marks: Final = msgspec.json.Decoder(_Document, strict=False).decode
_read_document: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_object: Final = msgspec.json.Decoder(dict[str, Any]).decode  # Any: values of any kind


class Opened(msgspec.Struct):
    """A message as it was found in a list."""

    envelope: Envelope
    exchange: str = ""
    routing_key: str = ""
    redelivered: bool = False
    attempt: int = 1
    not_before: float | None = None  # epoch seconds
    defect: str | None = None

    def delivery(self, queue: str, token: Any = None) -> Delivery:  # Any: the consumer's business
        """Return it as a delivery; nobody can settle one without a token."""
        return Delivery(
            envelope=self.envelope,
            queue=queue,
            exchange=self.exchange,
            routing_key=self.routing_key,
            redelivered=self.redelivered,
            attempt=self.attempt,
            token=token,
            defect=self.defect,
        )


def opened(raw: bytes) -> Opened:
    """Read a message; one that cannot be read comes back whole, with its defect."""
    try:
        envelope, exchange, routing_key = virtual.decode(raw)
    except DecodeError as exc:
        bare = Envelope(headers={}, body=raw, content_type=None, content_encoding=None, properties=Props())
        return Opened(bare, defect=str(exc))
    found = Opened(envelope, exchange, routing_key)
    if envelope.properties.extra:
        found.not_before = _moment(envelope.properties.extra.pop(NOT_BEFORE, None))
    if _REDELIVERED in raw:
        marks = _marks(raw)
        found.redelivered = marks.redelivered
        # kombu counts nothing: then it was delivered once before at least.
        found.attempt = max(marks.attempt, 2) if marks.redelivered else 1
    return found


def round_key(headers: Mapping[str, Any]) -> str | None:  # Any: whatever the sender put there
    """Return what a message takes turns by, as text of one line, never empty; None when it does not."""
    key = fair_key(headers)
    return None if key is None else json.dumps(key)


def key_of(raw: bytes) -> str | None:
    """Return the same for a message as it was in a list; one without a key is not read for that."""
    return round_key(opened(raw).envelope.headers) if _FAIR_KEY in raw else None


def redelivered(raw: bytes, attempt: int) -> bytes:
    """Return the message marked as delivered before; all else in it stays as it is, byte for byte.

    Args:
        raw: The message as it was in the list.
        attempt: The number of its next delivery.
    """
    try:
        document = _read_document(raw)
        properties = msgspec.json.decode(document["properties"], type=dict[str, msgspec.Raw])
        info = _read_object(properties["delivery_info"])
        info.update(redelivered=True, attempt=attempt)
        properties["delivery_info"] = msgspec.Raw(_write(info))
        document["properties"] = msgspec.Raw(_write(properties))
        return _write(document)
    except (KeyError, msgspec.MsgspecError, ValueError):
        return raw  # no message at all, or of a form in which nobody would find the mark


def unmarked(raw: bytes) -> bytes:
    """Return the message as if it had never been delivered; one without marks stays byte for byte."""
    if _REDELIVERED not in raw:
        return raw
    try:
        document = _read_document(raw)
        properties = msgspec.json.decode(document["properties"], type=dict[str, msgspec.Raw])
        info = _read_object(properties["delivery_info"])
        for mark in ("redelivered", "attempt"):
            info.pop(mark, None)
        properties["delivery_info"] = msgspec.Raw(_write(info))
        document["properties"] = msgspec.Raw(_write(properties))
        return _write(document)
    except (KeyError, msgspec.MsgspecError, ValueError):
        return raw


def _marks(raw: bytes) -> _Marks:
    try:
        return _read_marks(raw).properties.delivery_info
    except (msgspec.MsgspecError, ValueError):
        return _Marks()


def _moment(value: Any) -> float | None:  # Any: whatever the sender wrote
    return float(value) if isinstance(value, (int, float)) else None
