"""The AMQP codec: what goes in comes out, and broken bytes are told as such."""

from __future__ import annotations

import contextlib
import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.errors import DecodeError, EncodeError
from celeriac.message import Envelope, Props
from celeriac.transports.amqp import frames
from celeriac.transports.amqp.connection import Confirm, Connection, Login, Message, Refused
from celeriac.transports.amqp.tables import (
    decode_arguments,
    decode_properties,
    decode_table,
    encode_arguments,
    encode_properties,
    encode_table,
)

moments = st.datetimes(min_value=datetime.datetime(1970, 1, 1), timezones=st.just(datetime.UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)
decimals = st.builds(
    lambda number, places: Decimal(number).scaleb(-places), st.integers(0, 2**32 - 1), st.integers(0, 255)
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | moments
    | decimals
)
keys = st.text(max_size=60)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)
)
tables = st.dictionaries(keys, values, max_size=8)
short = st.text(max_size=60)


@given(tables)
def test_tables_come_back_as_they_were(table: dict[str, Any]) -> None:
    data = encode_table(table)

    assert int.from_bytes(data[:4]) == len(data) - 4
    assert decode_table(data[4:]) == table


@given(
    headers=tables,
    props=st.builds(
        Props,
        correlation_id=st.none() | short,
        reply_to=st.none() | short,
        delivery_mode=st.sampled_from([1, 2]),
        priority=st.integers(0, 255),
        expiration=st.none() | short,
        message_id=st.none() | short,
        timestamp=st.none() | st.integers(0, 2**63 - 1),
        extra=st.dictionaries(st.sampled_from(["type", "user_id", "app_id", "cluster_id"]), short),
    ),
    content_type=st.none() | short,
    content_encoding=st.none() | short,
    body=st.binary(),
)
def test_properties_come_back_as_they_were(
    headers: dict[str, Any], props: Props, content_type: str | None, content_encoding: str | None, body: bytes
) -> None:
    sent = Envelope(
        headers=headers,
        body=body,
        content_type=content_type,
        content_encoding=content_encoding,
        properties=props,
    )

    assert decode_properties(encode_properties(sent), body) == sent


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_a_decode_error(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        decode_table(data)
    with contextlib.suppress(DecodeError):
        decode_properties(data, b"")


@given(tables, st.data())
def test_a_damaged_table_is_a_table_or_a_decode_error(table: dict[str, Any], data: st.DataObject) -> None:
    whole = bytearray(encode_table({"id": "x", **table})[4:])
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))

    with contextlib.suppress(DecodeError):
        decode_table(bytes(whole))


@given(st.binary(max_size=300) | tables.map(lambda table: encode_table(table)[4:]), st.data())
def test_whatever_can_be_read_can_be_written_again(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    if damaged:
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(DecodeError):
        table = decode_table(bytes(damaged))
        # NaN is not itself, and a time is read as one or, past the year 9999, as a number.
        assert repr(decode_table(encode_table(table)[4:])) == repr(table)


def test_a_time_that_cannot_be_written_again_is_refused() -> None:
    with pytest.raises(DecodeError, match="after 1970"):
        decode_table(b"\x01tT" + b"\xff" * 8)


def test_a_table_nested_without_end_is_refused() -> None:
    table: dict[str, Any] = {}
    for _ in range(200):
        table = {"t": table}

    with pytest.raises(DecodeError, match="nested"):
        decode_table(encode_table(table)[4:])


def test_bytes_of_another_codes_are_read_as_rabbitmq_means_them() -> None:
    data = b"\x01bb\xff\x01BB\xff\x01ss\xff\xfe\x01uu\xff\xfe\x01ii\xff\xff\xff\xff"
    data += b"\x01ff\x3f\x80\x00\x00\x01LL" + b"\xff" * 8 + b"\x01xx\x00\x00\x00\x02hi"

    assert decode_table(data) == {
        "b": -1,
        "B": 255,
        "s": -2,
        "u": 65534,
        "i": 2**32 - 1,
        "f": 1.0,
        "L": -1,
        "x": b"hi",
    }


def test_text_that_is_no_utf8_stays_bytes() -> None:
    assert decode_table(b"\x01kS\x00\x00\x00\x02\xff\xfe") == {"k": b"\xff\xfe"}


@pytest.mark.parametrize(
    "value",
    [
        {1},
        object(),
        2**63,
        Decimal(-1),
        Decimal("NaN"),
        [1, [2, {3}]],
        {"deep": object()},
        datetime.datetime(1969, 1, 1),
    ],
)
def test_what_has_no_form_in_amqp_is_an_encode_error(value: Any) -> None:
    with pytest.raises(EncodeError, match="AMQP has no form"):
        encode_table({"header": value})


@pytest.mark.parametrize(
    "changes",
    [
        {"correlation_id": "x" * 256},
        {"priority": 256},
        {"priority": "high"},
        {"extra": {"timestamp": "yesterday"}},
        {"extra": {"timestamp": -1}},
        {"extra": {"timestamp": float("inf")}},
        {"correlation_id": "\ud800"},
        {"reply_to": 7},
    ],
)
def test_properties_that_do_not_fit_are_an_encode_error(changes: dict[str, Any]) -> None:
    props = Props()
    for name, value in changes.items():
        setattr(props, name, value)

    with pytest.raises(EncodeError):
        encode_properties(Envelope(headers={}, body=b"", properties=props))


@pytest.mark.parametrize("headers", [{"\ud800": 1}, {"name": "\ud800"}, {"name": ["\ud800"]}])
def test_half_a_character_is_an_encode_error(headers: dict[str, Any]) -> None:
    with pytest.raises(EncodeError, match="no text that can be written"):
        encode_table(headers)


def test_headers_that_hold_themselves_are_an_encode_error() -> None:
    headers: dict[str, Any] = {}
    headers["self"] = headers

    with pytest.raises(EncodeError, match="holds itself"):
        encode_properties(Envelope(headers=headers, body=b"", properties=Props()))


def test_properties_that_amqp_does_not_have_are_left_out() -> None:
    props = Props(delivery_tag="redis only", extra={"delivery_info": {}, "app_id": "mine"})

    got = decode_properties(encode_properties(Envelope(headers={}, body=b"", properties=props)), b"")

    assert got.properties == Props(extra={"app_id": "mine"})


@given(
    st.integers(0, 65535),
    short,
    st.lists(st.booleans(), min_size=8, max_size=8),
    tables,
    st.binary(),
    st.integers(0, 2**64 - 1),
)
def test_arguments_come_back_as_they_were(
    number: int, text: str, flags: list[bool], table: dict[str, Any], data: bytes, tag: int
) -> None:
    forms = "sS" + "b" * 8 + "FLq" + "bb"
    values = (number, text, *flags, table, data, tag, True, False)

    assert decode_arguments(forms, encode_arguments(forms, values), 0) == values


# --- the connection, without a socket -----------------------------------------------------------------


def server(name: str, *arguments: Any, channel: int = 0) -> bytes:
    return frames.method(channel, name, *arguments)


def opened(**login: Any) -> Connection:
    """Return a connection whose handshake is done, with one channel open."""
    connection = Connection(Login(user="me", password="secret", vhost="/", **login))
    connection.feed(server("connection.start", 0, 9, {"product": "RabbitMQ"}, b"AMQPLAIN PLAIN", b"en_US"))
    connection.feed(server("connection.tune", 2047, 131072, 60))
    connection.feed(server("connection.open-ok", ""))
    assert connection.ready.done
    assert connection.ready.error is None
    connection.open_channel(1)
    connection.feed(server("channel.open-ok", b"", channel=1))
    connection.take()
    return connection


def deliver(tag: int, body: bytes, frame_max: int = 131072) -> bytes:
    properties = encode_properties(Envelope(headers={"n": tag}, body=b"", properties=Props()))
    head = server("basic.deliver", "1", tag, False, "", "q", channel=1)
    return head + frames.content(1, properties, body, frame_max)


@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(9, 30), st.data())
def test_messages_arrive_however_the_bytes_are_cut(
    bodies: list[bytes], frame_max: int, data: st.DataObject
) -> None:
    stream = b"".join(deliver(number, body, frame_max) for number, body in enumerate(bodies, 1))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    connection = opened()

    got = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += connection.feed(stream[start:stop])

    assert all(isinstance(event, Message) for event in got)
    assert [(event.tag, event.body) for event in got if isinstance(event, Message)] == [*enumerate(bodies, 1)]


@given(st.binary(max_size=200))
def test_any_bytes_are_amqp_or_a_decode_error(data: bytes) -> None:
    connection = opened()
    with contextlib.suppress(DecodeError):
        connection.feed(data)


def test_the_handshake_offers_what_the_login_says() -> None:
    connection = Connection(Login(user="me", password="pw", vhost="/v", heartbeat_seconds=5, name="celery@h"))
    assert connection.take() == b"AMQP\x00\x00\x09\x01"

    connection.feed(server("connection.start", 0, 9, {}, b"PLAIN", b"en_US"))
    ok = connection.take()
    connection.feed(server("connection.tune", 0, 4096, 60))
    tuned = connection.take()

    assert b"\x00me\x00pw" in ok
    assert b"celery@h" in ok
    assert tuned == server("connection.tune-ok", 0, 4096, 5) + server("connection.open", "/v", "", False)
    assert (connection.frame_max, connection.heartbeat_seconds) == (4096, 5)


def test_a_login_method_that_the_broker_does_not_offer_is_told() -> None:
    connection = Connection(Login(user="me", password="pw", vhost="/", mechanism="EXTERNAL"))

    with pytest.raises(Refused, match=r"PLAIN.*EXTERNAL"):
        connection.feed(server("connection.start", 0, 9, {}, b"PLAIN", b"en_US"))


def test_a_closed_channel_fails_what_was_asked_and_may_be_opened_again() -> None:
    connection = opened()
    request = connection.request(1, "queue.purge", 0, "nowhere", False)
    connection.take()

    [event] = connection.feed(server("channel.close", 404, "NOT_FOUND - no queue", 50, 30, channel=1))
    again = connection.request(1, "queue.purge", 0, "somewhere", False)

    assert isinstance(request.error, Refused)
    assert (request.error.code, str(request.error)) == (404, "NOT_FOUND - no queue")
    assert event.error is request.error  # type: ignore[union-attr]
    assert connection.take().startswith(
        server("channel.close-ok", channel=1) + server("channel.open", "", channel=1)
    )
    connection.feed(server("channel.open-ok", b"", channel=1) + server("queue.purge-ok", 3, channel=1))
    assert (again.answer, again.error) == ((3,), None)


def test_replies_go_to_their_requests_in_whatever_order_they_come() -> None:
    connection = opened()
    first = connection.request(1, "basic.consume", 0, "q", "1", False, False, False, False, {})
    second = connection.request(1, "basic.consume", 0, "p", "2", False, False, False, False, {})
    unnamed = connection.request(1, "basic.consume", 0, "r", "", False, False, False, False, {})
    look = connection.request(1, "queue.declare", 0, "q", True, False, False, False, False, {})

    replies = (
        server("queue.declare-ok", "q", 5, 1, channel=1),
        server("basic.consume-ok", "2", channel=1),
        server("basic.consume-ok", "amq.ctag-x", channel=1),
        server("basic.consume-ok", "1", channel=1),
    )
    connection.feed(b"".join(replies))

    assert look.answer == ("q", 5, 1)
    assert [request.answer for request in (first, second, unnamed)] == [("1",), ("2",), ("amq.ctag-x",)]
    with pytest.raises(DecodeError, match=r"nobody had asked: basic\.cancel-ok 1"):
        connection.feed(server("basic.cancel-ok", "1", channel=1))


def test_a_closed_connection_fails_everything() -> None:
    connection = opened()
    request = connection.request(1, "queue.purge", 0, "q", False)

    connection.feed(server("connection.close", 320, "CONNECTION_FORCED - shutdown", 0, 0))

    assert isinstance(connection.error, Refused)
    assert request.error is connection.error
    assert connection.request(1, "queue.purge", 0, "q", False).error is connection.error
    assert connection.take().endswith(server("connection.close-ok"))


def test_confirms_and_blocking_are_told() -> None:
    connection = opened()

    events = connection.feed(
        server("basic.ack", 7, True, channel=1)
        + server("basic.nack", 8, False, False, channel=1)
        + server("connection.blocked", "low on memory")
    )

    assert events == [Confirm(1, 7, True, True), Confirm(1, 8, False, False)]
    assert connection.blocked == "low on memory"
    connection.feed(server("connection.unblocked"))
    assert connection.blocked is None


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"AMQP\x00\x00\x09\x01",
        frames.HEAD.pack(1, 0, 4) + b"\x00\x0a\x00\xff\xce",
        frames.HEAD.pack(1, 0, 4) + b"\x00\x0a\x00\x32\x00",
        frames.HEAD.pack(1, 1, 2**31) + b"\x00",
        frames.HEAD.pack(3, 1, 1) + b"x\xce",
        server("queue.purge-ok", 1, channel=1),
    ],
)
def test_a_peer_that_does_not_speak_amqp_is_told(data: bytes) -> None:
    with pytest.raises(DecodeError):
        opened().feed(data)
