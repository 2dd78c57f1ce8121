"""AMQP values and bytes: field tables, the arguments of methods, and the properties of messages.

Pure and written for speed where it counts: a task message has 19 headers, and every one of them passes here
twice. `decode_table` and `encode_table` are the hot ones; everything else is table-driven and short.
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from celeriac.errors import DecodeError, EncodeError
from celeriac.message import Envelope, Props

_MAX_DEPTH: Final = 64  # tables in tables: a hostile message must not exhaust the stack
_SHORT: Final = struct.Struct(">H")
_LONG: Final = struct.Struct(">I")
_LONG_LONG: Final = struct.Struct(">Q")
_WHOLE: Final = struct.Struct(">i")
_STRING_HEAD: Final = struct.Struct(">BI").pack
_UTC: Final = datetime.UTC
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=_UTC)

# --- values out of bytes ------------------------------------------------------------------------------

# Types of a fixed size, by their code; RabbitMQ's reading of it, where it and the standard differ.
_FIXED: Final = {
    ord(code): struct.Struct(">" + form)
    for code, form in {
        "t": "?",
        "b": "b",
        "B": "B",
        "s": "h",
        "u": "H",
        "I": "i",
        "i": "I",
        "l": "q",
        "L": "q",
        "f": "f",
        "d": "d",
    }.items()
}
_S, _V, _A, _T, _D, _X = b"SVATDx"


def decode_table(data: bytes, start: int = 0, stop: int | None = None, depth: int = 0) -> dict[str, Any]:
    """Return the field table that fills ``data[start:stop]`` (its length prefix already taken off).

    Raises:
        DecodeError: The bytes are no field table.
    """
    end = len(data) if stop is None else stop
    table: dict[str, Any] = {}
    pos = start
    number, whole = _LONG.unpack_from, _WHOLE.unpack_from
    try:
        while pos < end:
            after = pos + 1 + data[pos]
            key = data[pos + 1 : after].decode()
            code = data[after]
            if code == 83:  # S: nearly all of a task's headers are strings or nothing
                after += 5
                pos = after + number(data, after - 4)[0]
                raw = data[after:pos]
                try:
                    table[key] = raw.decode()
                except UnicodeDecodeError:
                    table[key] = raw  # a long string may hold any bytes
            elif code == 86:  # V
                table[key] = None
                pos = after + 1
            elif code == 73:  # I
                table[key] = whole(data, after + 1)[0]
                pos = after + 5
            else:
                table[key], pos = _value(data, after, depth)
    except (IndexError, struct.error, UnicodeDecodeError) as exc:
        raise DecodeError(f"an AMQP field table is broken at byte {pos - start}: {exc}") from exc
    if pos != end:
        raise DecodeError(f"an AMQP field table is {pos - end} bytes longer than it says")
    return table


def _value(data: bytes, pos: int, depth: int) -> tuple[Any, int]:
    """Return the value whose type code is at ``pos``, and where the next one begins."""
    code = data[pos]
    pos += 1
    fixed = _FIXED.get(code)
    if fixed is not None:
        return fixed.unpack_from(data, pos)[0], pos + fixed.size
    if code == _V:
        return None, pos
    if code == _T:
        seconds = _LONG_LONG.unpack_from(data, pos)[0]
        return _moment(seconds), pos + 8
    if code == _D:
        return Decimal(_LONG.unpack_from(data, pos + 1)[0]).scaleb(-data[pos]), pos + 5
    start = pos + 4
    end = start + int.from_bytes(data[pos:start])
    if end > len(data):
        raise DecodeError("an AMQP field table ends in the middle of a value")
    match code:
        case 83:  # S
            try:
                return data[start:end].decode(), end
            except UnicodeDecodeError:
                return data[start:end], end
        case 120:  # x
            return data[start:end], end
        case 65:  # A
            return _array(data, start, end, depth), end
        case 70:  # F
            return decode_table(data, start, end, _deeper(depth)), end
        case _:
            raise DecodeError(f"an AMQP field table has a value of unknown type {chr(code)!r}")


def _array(data: bytes, pos: int, end: int, depth: int) -> list[Any]:
    items: list[Any] = []
    while pos < end:
        if data[pos] == _V:
            items.append(None)
            pos += 1
        else:
            item, pos = _value(data, pos, _deeper(depth))
            items.append(item)
    return items


def _deeper(depth: int) -> int:
    if depth >= _MAX_DEPTH:
        raise DecodeError(f"an AMQP field table is nested more than {_MAX_DEPTH} deep")
    return depth + 1


def _moment(seconds: int) -> datetime.datetime | int:
    try:
        return datetime.datetime.fromtimestamp(seconds, _UTC)
    except (ValueError, OverflowError, OSError):
        if seconds >= 2**63:  # nothing that we could write again, for a dead letter or a second attempt
            raise DecodeError(f"an AMQP field table has a time {seconds} s after 1970") from None
        return seconds  # some clients write milliseconds here, past the year 9999


# --- bytes out of values ------------------------------------------------------------------------------


def encode_table(table: Mapping[str, Any]) -> bytes:
    """Return a field table with its length prefix.

    Raises:
        EncodeError: A key is no text of at most 255 bytes, or a value has no form in AMQP.
    """
    parts = []
    try:
        for key, value in table.items():
            if value is None:
                parts.append(_VOID_KEYS.get(key) or short_string(key) + b"V")
                continue
            parts.append(_KEYS.get(key) or short_string(key))
            if type(value) is str:
                raw = value.encode()
                parts.append(_STRING_HEAD(83, len(raw)) + raw)
            else:
                encoder = _ENCODERS.get(type(value)) or _encoder(value)
                parts.append(encoder(value))
    except UnicodeEncodeError as exc:
        raise EncodeError(f"the header {key!r} is no text that can be written: {exc}") from exc
    body = b"".join(parts)
    return _LONG.pack(len(body)) + body


def short_string(text: str) -> bytes:
    """Return a string with its length in one byte.

    Raises:
        EncodeError: It is no text, or longer than 255 bytes.
    """
    if not isinstance(text, str):
        raise EncodeError(f"AMQP wants text here, not {text!r} of type {type(text).__name__}")
    try:
        raw = text.encode()
    except UnicodeEncodeError as exc:
        raise EncodeError(f"{text[:40]!r} is no text that can be written: {exc}") from exc
    if len(raw) > 255:
        raise EncodeError(f"AMQP allows 255 bytes here; {text[:40]!r}… has {len(raw)}")
    return bytes((len(raw),)) + raw


def long_string(data: bytes) -> bytes:
    """Return bytes with their length in four."""
    return _LONG.pack(len(data)) + data


_HEADERS: Final = (
    *("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit"),
    *("root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting"),
    *("stamped_headers", "stamps", "compression"),
)
_KEYS: Final = {name: short_string(name) for name in _HEADERS}  # made once: 0.1 µs a header
_VOID_KEYS: Final = {name: short_string(name) + b"V" for name in _HEADERS}


def _encode_int(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return struct.pack(">Bi", 73, value)  # I
    if -(2**63) <= value < 2**63:
        return struct.pack(">Bq", 108, value)  # l
    raise EncodeError(f"AMQP has no form for the whole number {value}: at most 64 bits")


def _encode_list(value: list[Any] | tuple[Any, ...]) -> bytes:
    body = b"".join([b"V" if item is None else _encode_value(item) for item in value])
    return _STRING_HEAD(_A, len(body)) + body


def _encode_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    number = int("".join(map(str, digits)) or "0")
    if sign or not isinstance(exponent, int) or not -255 <= exponent <= 0 or number >= 2**32:
        raise EncodeError(f"AMQP has no form for the decimal number {value}")
    return struct.pack(">BBI", _D, -exponent, number)


def _encode_moment(value: datetime.datetime) -> bytes:
    moment = value if value.tzinfo else value.replace(tzinfo=_UTC)
    if moment < _EPOCH:
        raise EncodeError(f"AMQP has no form for a time before 1970: {value}")
    return struct.pack(">BQ", _T, int(moment.timestamp()))


def _encode_string(value: str) -> bytes:
    raw = value.encode()
    return _STRING_HEAD(_S, len(raw)) + raw


_ENCODERS: Final[
    dict[type, Callable[[Any], bytes]]
] = {  # subclasses take the first that fits, so bool before int
    bool: lambda value: b"t\x01" if value else b"t\x00",
    str: _encode_string,
    int: _encode_int,
    float: lambda value: struct.pack(">Bd", 100, value),
    type(None): lambda value: b"V",
    list: _encode_list,
    tuple: _encode_list,
    dict: lambda value: b"F" + encode_table(value),
    bytes: lambda value: _STRING_HEAD(_X, len(value)) + value,
    datetime.datetime: _encode_moment,
    Decimal: _encode_decimal,
    Mapping: lambda value: b"F" + encode_table(value),
}


def _encode_value(value: Any) -> bytes:
    encoder = _ENCODERS.get(type(value)) or _encoder(value)
    return encoder(value)


def _encoder(value: Any) -> Callable[[Any], bytes]:
    """Return the encoder of a value whose type is not in the table itself: of what it derives from."""
    for kind, encoder in _ENCODERS.items():
        if isinstance(value, kind):
            return encoder
    raise EncodeError(f"AMQP has no form for the header value {value!r} of type {type(value).__name__}")


# --- the properties of a message ------------------------------------------------------------------------

# Flag, name and type, in the order of the wire. Those without a field in `Props` travel in `Props.extra`.
_PROPERTIES: Final = (
    (1 << 15, "content_type", "S"),
    (1 << 14, "content_encoding", "S"),
    (1 << 13, "headers", "F"),
    (1 << 12, "delivery_mode", "o"),
    (1 << 11, "priority", "o"),
    (1 << 10, "correlation_id", "S"),
    (1 << 9, "reply_to", "S"),
    (1 << 8, "expiration", "S"),
    (1 << 7, "message_id", "S"),
    (1 << 6, "timestamp", "q"),
    (1 << 5, "type", "S"),
    (1 << 4, "user_id", "S"),
    (1 << 3, "app_id", "S"),
    (1 << 2, "cluster_id", "S"),
)
_EXTRA: Final = tuple(entry for entry in _PROPERTIES if entry[0] <= 1 << 6)  # timestamp: as users give it
_EXTRA_FLAGS: Final = (1 << 6) - 1
_LAYOUTS: Final[dict[int, list[tuple[str, str]]]] = {}  # by flags: what follows them; at most 2^14 entries


def encode_properties(envelope: Envelope) -> bytes:
    """Return the flags and properties of an envelope; properties that AMQP does not have are left out.

    Raises:
        EncodeError: A header or property has no form in AMQP.
    """
    props = envelope.properties
    flags = 0x3800  # headers, delivery_mode and priority are always there
    parts = [b""]
    for flag, text in ((1 << 15, envelope.content_type), (1 << 14, envelope.content_encoding)):
        if text is not None:
            flags |= flag
            parts.append(short_string(text))
    try:
        parts.append(encode_table(envelope.headers))
    except RecursionError as exc:
        raise EncodeError("the headers hold something that holds itself") from exc
    try:
        parts.append(bytes((props.delivery_mode, props.priority)))
    except (ValueError, TypeError) as exc:
        raise EncodeError(
            f"delivery_mode {props.delivery_mode!r} and priority {props.priority!r} have to be whole numbers "
            "from 0 to 255 in AMQP"
        ) from exc
    if props.correlation_id is not None:
        flags |= 1 << 10
        parts.append(short_string(props.correlation_id))
    if props.reply_to is not None:
        flags |= 1 << 9
        parts.append(short_string(props.reply_to))
    if props.expiration is not None:
        flags |= 1 << 8
        parts.append(short_string(str(props.expiration)))
    if props.message_id is not None:
        flags |= 1 << 7
        parts.append(short_string(props.message_id))
    if props.timestamp is not None and "timestamp" not in props.extra:
        flags |= 1 << 6
        parts.append(_LONG_LONG.pack(_seconds(props.timestamp)))
    if props.extra:
        flags |= _encode_extra(props.extra, parts)
    parts[0] = _SHORT.pack(flags)
    return b"".join(parts)


def _encode_extra(extra: Mapping[str, Any], parts: list[bytes]) -> int:
    """Add the properties of AMQP that are among those of users, and return their flags."""
    flags = 0
    for flag, name, form in _EXTRA:
        value = extra.get(name)
        if value is not None:
            flags |= flag
            parts.append(_LONG_LONG.pack(_seconds(value)) if form == "q" else short_string(str(value)))
    return flags


def _seconds(value: Any) -> int:
    try:
        seconds = int(value.timestamp() if isinstance(value, datetime.datetime) else value)
    except (ValueError, TypeError, OverflowError) as exc:
        raise EncodeError(f"the property timestamp wants seconds since the epoch, not {value!r}") from exc
    if not 0 <= seconds < 2**64:
        raise EncodeError(f"the property timestamp wants seconds since the epoch, not {value!r}")
    return seconds


def decode_properties(data: bytes, body: bytes) -> Envelope:
    """Return the envelope of a body and its properties.

    Raises:
        DecodeError: The properties cannot be read.
    """
    flags = int.from_bytes(data[:2])
    layout = _LAYOUTS.get(flags)
    if layout is None:
        layout = _LAYOUTS[flags & 0xFFFC] = [entry[1:] for entry in _PROPERTIES if flags & entry[0]]
    pos = 2
    found: dict[str, Any] = {}
    try:
        for name, form in layout:
            if form == "S":
                after = pos + 1 + data[pos]
                found[name] = data[pos + 1 : after].decode()
                pos = after
            elif form == "o":
                found[name] = data[pos]
                pos += 1
            elif form == "F":
                start = pos + 4
                pos = start + int.from_bytes(data[pos:start])
                found[name] = decode_table(data, start, pos)
            else:
                found[name] = _LONG_LONG.unpack_from(data, pos)[0]
                pos += 8
    except (IndexError, struct.error, UnicodeDecodeError) as exc:
        raise DecodeError(f"the AMQP properties of a message are broken: {exc}") from exc
    if pos > len(data):
        raise DecodeError("the AMQP properties of a message end too early")
    extra = {}
    if flags & _EXTRA_FLAGS:
        extra = {name: found[name] for _, name, _ in _EXTRA if name in found and name != "timestamp"}
    get = found.get
    return Envelope(
        headers=get("headers", {}),
        body=body,
        content_type=get("content_type"),
        content_encoding=get("content_encoding"),
        properties=Props(
            correlation_id=get("correlation_id"),
            reply_to=get("reply_to"),
            delivery_mode=get("delivery_mode", 1),
            priority=get("priority", 0),
            expiration=get("expiration"),
            message_id=get("message_id"),
            timestamp=get("timestamp"),
            extra=extra,
        ),
    )


# --- the arguments of methods -----------------------------------------------------------------------------


def encode_arguments(forms: str, values: tuple[Any, ...]) -> bytes:
    """Return the arguments of a method; ``forms`` has a letter each, see `frames.METHODS`."""
    parts: list[bytes] = []
    bits, used = 0, 0
    for form, value in zip(forms + "\0", (*values, None), strict=True):
        if form == "b":  # up to eight flags in a row share a byte
            bits |= bool(value) << used
            used += 1
            continue
        if used:
            parts.append(bytes((bits,)))
            bits = used = 0
        if form != "\0":
            parts.append(_ARGUMENTS[form](value))
    return b"".join(parts)


_ARGUMENTS: Final[dict[str, Callable[[Any], bytes]]] = {
    "o": lambda value: bytes((value,)),
    "s": _SHORT.pack,
    "l": _LONG.pack,
    "q": _LONG_LONG.pack,
    "S": short_string,
    "L": long_string,
    "F": encode_table,
}


def decode_arguments(forms: str, data: bytes, pos: int) -> tuple[Any, ...]:
    """Return the arguments of a method from ``data[pos:]``.

    Raises:
        DecodeError: They are cut off or no text where text has to be.
    """
    values: list[Any] = []
    used = 0
    try:
        for form in forms:
            if form == "b":
                values.append(bool(data[pos] >> used & 1))
                used += 1
                continue
            if used:
                pos += 1
                used = 0
            if form == "S":
                after = pos + 1 + data[pos]
                values.append(data[pos + 1 : after].decode())
            elif form in "LF":
                after = pos + 4 + int.from_bytes(data[pos : pos + 4])
                raw = data[pos + 4 : after]
                values.append(decode_table(raw) if form == "F" else raw)
            else:
                number = {"o": 1, "s": 2, "l": 4, "q": 8}[form]
                after = pos + number
                values.append(int.from_bytes(data[pos:after]))
            pos = after
    except (IndexError, UnicodeDecodeError) as exc:
        raise DecodeError(f"the arguments of an AMQP method are broken: {exc}") from exc
    return tuple(values)
