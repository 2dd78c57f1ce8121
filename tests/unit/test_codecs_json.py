"""JSON as Celery writes and reads it."""

from __future__ import annotations

import datetime
import enum
import json
import math
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from celeriac.codecs import Codecs
from celeriac.errors import ConfigError, ContentRefused, DecodeError, EncodeError

UTC = datetime.UTC
EXTENDED: list[tuple[Any, Any]] = [
    (
        datetime.datetime(2030, 1, 2, 3, 4, 5, 678),
        {"__type__": "datetime", "__value__": "2030-01-02T03:04:05.000678"},
    ),
    (
        datetime.datetime(2030, 1, 2, tzinfo=UTC),
        {"__type__": "datetime", "__value__": "2030-01-02T00:00:00+00:00"},
    ),
    (datetime.date(2030, 1, 2), {"__type__": "date", "__value__": "2030-01-02"}),
    (datetime.time(3, 4, 5), {"__type__": "time", "__value__": "03:04:05"}),
    (Decimal("1.50"), {"__type__": "decimal", "__value__": "1.50"}),
    (
        UUID("12345678-1234-5678-1234-567812345678"),
        {"__type__": "uuid", "__value__": {"hex": "12345678123456781234567812345678"}},
    ),
    (b"abc", {"__type__": "bytes", "__value__": "abc"}),
    (b"\xff\xfe", {"__type__": "base64", "__value__": "//4="}),
]


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


class WithJson:
    def __json__(self) -> dict[str, Any]:
        return {"task": "t", "when": datetime.date(2030, 1, 2)}


class Colour(enum.Enum):
    RED = 1


def encode(value: Any) -> bytes:
    return Codecs().encode(value, "json")[2]


def decode(text: str | bytes) -> Any:
    data = text.encode() if isinstance(text, str) else text
    return Codecs().decode(data, "application/json", "utf-8")


@pytest.mark.parametrize(("value", "wire"), EXTENDED)
def test_extended_types_travel_in_celerys_form(value: Any, wire: Any) -> None:
    assert json.loads(encode([value])) == [wire]

    assert decode(json.dumps([wire])) == [value]


def test_content_type_and_encoding_are_announced() -> None:
    assert Codecs().encode([1], "json") == ("application/json", "utf-8", b"[1]")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        ({7: 2, None: 3, True: 4, 1.5: 5}, '{"7":2,"null":3,"true":4,"1.5":5}'),
        ("é\ud800", '"\\u00e9\\ud800"'),
        ((1, (2,)), "[1,[2]]"),
        (2**80, str(2**80)),
    ],
)
def test_what_json_leaves_open_is_written_as_pythons_json_writes_it(value: Any, text: str) -> None:
    assert encode(value).decode() == text


@pytest.mark.parametrize(
    "value", [{1, 2}, 1j, datetime.timedelta(1), object(), Colour.RED, bytearray(b"x"), range(3)]
)
def test_what_celery_refuses_is_refused_in_its_words(value: Any) -> None:
    with pytest.raises(EncodeError) as caught:
        encode([value])

    assert str(caught.value) == f"Object of type {type(value).__name__} is not JSON serializable"
    assert repr(caught.value.args[0]) == f"TypeError({str(caught.value)!r})"


def test_a_cycle_is_an_error_and_not_a_crash() -> None:
    loop: list[Any] = []
    loop.append(loop)

    with pytest.raises(EncodeError, match="Circular reference detected"):
        encode(loop)


def test_objects_may_say_what_they_are_in_json() -> None:
    assert decode(encode(WithJson())) == {"task": "t", "when": datetime.date(2030, 1, 2)}


def test_an_added_type_comes_back_as_itself() -> None:
    codecs = Codecs()
    codecs.json.add_type(Money, "money", lambda m: m.cents, Money)

    back = codecs.decode(codecs.encode([Money(5)], "json")[2], "application/json", "utf-8")

    assert back[0].cents == 5


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "",
        '{"__type__":"nobody","__value__":1}',
        '{"__type__":["x"],"__value__":1}',
        '{"__type__":"datetime","__value__":"yesterday"}',
        '{"__type__":"datetime","__value__":5}',
        '{"__type__":"decimal","__value__":"one"}',
        '{"__type__":"uuid","__value__":{"nope":1}}',
        '{"__type__":"base64","__value__":"?"}',
        b'"\xff"',
        "[" * 100_000,
    ],
)
def test_broken_json_is_a_decode_error(text: str | bytes) -> None:
    with pytest.raises(DecodeError):
        decode(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("[Infinity, 1e400]", [math.inf, math.inf]), ('"\\ud800"', "\ud800"), ("[1e5, 1.0]", [100000.0, 1.0])],
)
def test_what_pythons_json_reads_is_read(text: str, value: Any) -> None:
    assert decode(text) == value


def test_objects_that_only_resemble_the_extension_stay_dicts() -> None:
    for value in (
        {"__type__": "datetime"},
        {"__type__": "datetime", "__value__": "2030-01-02", "more": 1},
        {"__value__": 1, "x": "__type__"},
    ):
        assert decode(encode(value)) == value


def test_content_that_is_not_accepted_is_refused_before_it_is_decoded() -> None:
    codecs = Codecs()
    accept = codecs.accept_set(["json"])

    with pytest.raises(ContentRefused, match=r"Refusing to deserialize untrusted content of type text/plain"):
        codecs.decode(b"x", "text/plain", "utf-8", accept)
    with pytest.raises(ContentRefused, match="application/nope"):
        codecs.decode(b"x", "application/nope", "utf-8", accept)


def test_trusted_content_decodes_to_itself_whatever_is_accepted() -> None:
    codecs = Codecs()
    accept = codecs.accept_set(["json"])

    assert codecs.decode(b"x", "application/data", "binary", accept) == b"x"
    assert codecs.decode(b"x", "application/text", "utf-8", accept) == "x"
    assert codecs.decode(b"x", None, None, accept) == "x"


def test_accept_lists_names_and_mime_types() -> None:
    codecs = Codecs()

    assert codecs.accept_set(["json", "application/x-own"]) == {"application/json", "application/x-own"}
    with pytest.raises(ConfigError, match=r"jsn.*Did you mean json\?"):
        codecs.accept_set(["jsn"])


def test_an_unknown_serializer_is_named() -> None:
    with pytest.raises(EncodeError, match="No encoder/decoder installed for zzz"):
        Codecs().encode(1, "zzz")


def test_a_serializer_of_the_users_own_gets_text_or_bytes_as_it_registered() -> None:
    codecs = Codecs()
    codecs.register("upper", lambda value: value.upper(), lambda text: text.lower(), "application/x-upper")
    codecs.register("hex", lambda v: v.hex().encode(), lambda b: bytes.fromhex(b.decode()), "x/hex", "binary")

    assert codecs.encode("é", "upper") == ("application/x-upper", "utf-8", "É".encode())
    assert codecs.decode("É".encode(), "application/x-upper", "utf-8") == "é"
    assert codecs.decode(codecs.encode(b"\x01", "hex")[2], "x/hex", "binary") == b"\x01"


def test_what_a_codec_of_the_user_raises_is_translated() -> None:
    def fail(value: Any) -> Any:
        raise LookupError("no")

    codecs = Codecs()
    codecs.register("bad", fail, fail, "application/x-bad")

    with pytest.raises(EncodeError, match="no"):
        codecs.encode(1, "bad")
    with pytest.raises(DecodeError, match="no"):
        codecs.decode(b"1", "application/x-bad", "utf-8")
