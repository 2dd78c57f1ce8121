"""Task messages of protocols 2 and 1."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

import pytest

from celeriac.codecs import Codecs
from celeriac.errors import ContentRefused, DecodeError, EncodeError, InvalidTaskError
from celeriac.message import Call, Envelope, Props
from celeriac.wire import virtual
from celeriac.wire.task import (
    TaskMessage,
    compose,
    compose_v1,
    is_alone,
    is_v2,
    seal,
    unpack_call,
    unpack_headers,
    upgrade,
)

ID = "a6de617e-fc0d-4d0a-b01e-2466c3ff5537"
JSON = frozenset({"application/json"})
LIMIT = 1_000_000


def sealed(serializer: str = "json", compression: str | None = None, **fields: Any) -> Envelope:
    message = TaskMessage(task="app.add", id=ID, **fields)
    return seal(*compose(message), Codecs(), serializer, compression)


def opened(envelope: Envelope, accept: frozenset[str] | None = JSON, limit: int = LIMIT) -> Call:
    return unpack_call(
        envelope.body,
        envelope.content_type,
        envelope.content_encoding,
        envelope.headers.get("compression"),
        Codecs(),
        accept,
        limit,
    )


def raw(body: Any, **headers: Any) -> Envelope:
    return Envelope(headers=headers, body=json.dumps(body).encode(), properties=Props())


def test_a_message_with_defaults_has_every_header_that_celery_sends() -> None:
    envelope = sealed(args=(2, 3), origin="gen1@h", ignore_result=False)

    assert envelope.headers == {
        "lang": "py", "task": "app.add", "id": ID, "shadow": None, "eta": None, "expires": None,
        "group": None, "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": ID,
        "parent_id": None, "argsrepr": "(2, 3)", "kwargsrepr": "{}", "origin": "gen1@h",
        "ignore_result": False, "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
    }  # fmt: skip
    assert json.loads(envelope.body) == [
        [2, 3],
        {},
        {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
    ]
    assert envelope.properties == Props(correlation_id=ID, reply_to="", delivery_mode=2, priority=0)
    assert (envelope.content_type, envelope.content_encoding) == ("application/json", "utf-8")


def test_what_was_composed_may_be_edited_before_it_is_sealed() -> None:
    headers, body, props = compose(TaskMessage(task="t", id="1", args=[1]))

    headers["trace"] = "abc"
    body[2]["callbacks"] = [{"task": "next"}]
    envelope = seal(headers, body, props, Codecs())

    assert envelope.headers["trace"] == "abc"
    assert opened(envelope).callbacks == [{"task": "next"}]
    assert compose(TaskMessage(task="t", id="2"))[1][2]["callbacks"] is None


def test_headers_of_the_user_win() -> None:
    assert sealed(headers={"origin": "me", "mine": 1}).headers["origin"] == "me"


@pytest.mark.parametrize("compression", [None, "zlib", "bzip2", "xz"])
def test_a_call_survives_the_journey(compression: str | None) -> None:
    envelope = sealed(
        args=[1, "x" * 500], kwargs={"y": [None]}, chain=[{"task": "b"}], compression=compression
    )

    call = opened(envelope)

    assert call.args == [1, "x" * 500]
    assert call.kwargs == {"y": [None]}
    assert call.chain == [{"task": "b"}]
    assert ("compression" in envelope.headers) == (compression is not None)


def test_headers_come_back_typed() -> None:
    headers = unpack_headers(sealed(timelimit=(10, 2.5), group="g", group_index=3, stamps={"a": [1]}))

    assert headers.timelimit == (10, 2.5)
    assert (headers.group, headers.group_index, headers.stamps) == ("g", 3, {"a": [1]})


def test_task_and_id_are_enough() -> None:
    headers = unpack_headers(raw([[], {}, None], task="t", id="1"))

    assert (headers.task, headers.id, headers.retries, headers.timelimit) == ("t", "1", 0, None)


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"id": "1"}, "task"),
        ({"task": "t"}, "id"),
        ({"task": "t", "id": 5}, "id"),
        ({"task": "t", "id": "1", "eta": 12345}, "eta"),
        ({"task": "t", "id": "1", "timelimit": [1]}, "timelimit"),
        ({"task": "t", "id": "1", "retries": "many"}, "retries"),
        ({"task": "t", "id": "1", "stamps": []}, "stamps"),
    ],
)
def test_an_invalid_header_is_named(headers: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidTaskError, match=named):
        unpack_headers(raw([[], {}, None], **headers))


def test_headers_that_are_only_shown_never_cost_a_task() -> None:
    headers = unpack_headers(raw([[], {}, None], task="t", id="1", argsrepr=[1], origin=5, shadow=None))

    assert (headers.argsrepr, headers.origin, headers.shadow) == ("[1]", "5", None)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([[1], {}], "not 2 elements"),
        ([[1], {}, {}, 4], "not 4 elements"),
        ("text", "not str"),
        ({"no": "args here"}, "not dict"),
        ([{"a": 1}, {}, {}], "arguments have to be a list, not dict"),
        ([[1], [2], {}], "keyword arguments have to be an object, not list"),
        ([[1], {}, "embed"], "Third element"),
    ],
)
def test_a_body_that_is_no_call_says_what_it_is(body: Any, said: str) -> None:
    with pytest.raises(InvalidTaskError, match=said):
        opened(raw(body, task="t", id="1"))


def test_an_embed_of_null_or_nothing_is_fine() -> None:
    assert opened(raw([[1], {}, None])) == Call(args=[1], kwargs={})
    assert opened(raw([[1], {}, {}])) == Call(args=[1], kwargs={})


def test_a_hybrid_body_is_read_by_the_child() -> None:
    call = opened(raw({"args": [1], "kwargs": {"a": 2}, "callbacks": [{"task": "x"}]}, task="t", id="1"))

    assert call == Call(args=[1], kwargs={"a": 2}, callbacks=[{"task": "x"}])


def test_bodies_beyond_the_limit_are_not_decoded() -> None:
    with pytest.raises(DecodeError, match="at most 100 are decoded"):
        opened(sealed(args=["x" * 200]), limit=100)
    with pytest.raises(DecodeError, match="larger than 1000 bytes"):
        opened(sealed(args=["x" * 100_000], compression="zlib"), limit=1000)


def test_refused_content_and_unknown_compression_are_errors_of_decoding() -> None:
    envelope = sealed(args=[1])

    with pytest.raises(ContentRefused):
        opened(envelope, accept=frozenset({"application/x-yaml"}))
    envelope.headers["compression"] = "application/x-own"
    with pytest.raises(DecodeError, match="No such compression"):
        opened(envelope)


def test_an_argument_without_a_form_is_refused_when_sealing() -> None:
    with pytest.raises(EncodeError, match="Object of type set"):
        sealed(args=[{1}])


def test_protocol_1_becomes_protocol_2() -> None:
    old = raw(
        {
            "task": "app.add", "id": ID, "args": [1, 2], "kwargs": {"z": 3}, "group": "g", "taskset": "ts",
            "retries": 2, "eta": "2030-01-01T00:00:00+00:00", "expires": None, "utc": True,
            "callbacks": [{"task": "n"}], "errbacks": None, "timelimit": [9, None], "chord": None,
        },
        mine="kept",
    )  # fmt: skip

    new = upgrade(old, Codecs(), JSON)

    assert not is_v2(old)
    assert is_v2(new)
    headers = unpack_headers(new)
    assert (headers.id, headers.group, headers.retries, headers.timelimit) == (ID, "ts", 2, (9, None))
    assert headers.eta == "2030-01-01T00:00:00+00:00"
    assert headers.argsrepr == "[1, 2]"
    assert new.headers["mine"] == "kept"
    assert opened(new) == Call(args=[1, 2], kwargs={"z": 3}, callbacks=[{"task": "n"}])


def test_protocol_1_needs_no_more_than_a_task_and_an_id() -> None:
    new = upgrade(raw({"task": "t", "id": "1"}), Codecs(), JSON)

    assert unpack_headers(new).id == "1"
    assert opened(new) == Call(args=[], kwargs={})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([1, 2], "Unknown message"),
        ({"id": "1"}, "Unknown message"),
        ({"task": "t"}, "has no id"),
        ({"task": "t", "id": "1", "kwargs": []}, "keyword arguments"),
    ],
)
def test_what_is_no_protocol_1_message_either_is_invalid(body: Any, said: str) -> None:
    with pytest.raises(InvalidTaskError, match=said):
        upgrade(raw(body), Codecs(), JSON)


def test_a_local_eta_of_protocol_1_gets_an_offset() -> None:
    new = upgrade(raw({"task": "t", "id": "1", "eta": "2030-01-01T00:00:00", "utc": False}), Codecs(), JSON)

    assert len(new.headers["eta"]) == len("2030-01-01T00:00:00+00:00")


def test_what_we_send_as_protocol_1_says_the_same_as_protocol_2() -> None:
    message = TaskMessage(
        task="a",
        id="1",
        args=[1],
        retries=1,
        chain=[{"task": "c", "options": {"task_id": "3"}}, {"task": "b"}],
    )

    old = seal(*compose_v1(message), Codecs())
    call = opened(upgrade(old, Codecs(), JSON))

    assert old.headers == {}
    assert call.callbacks == [
        {"task": "b", "options": {"link": [{"task": "c", "options": {"task_id": "3"}}]}}
    ]


def test_the_redis_envelope_is_the_one_of_kombu() -> None:
    envelope = sealed(args=[2, 3], reply_to="oid", priority=3, expiration="60000")
    envelope.properties.delivery_tag = "tag"

    document = json.loads(virtual.encode(envelope, "", "celery"))

    assert base64.b64decode(document.pop("body")) == envelope.body
    assert document == {
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": envelope.headers,
        "properties": {
            "correlation_id": ID,
            "reply_to": "oid",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "priority": 3,
            "body_encoding": "base64",
            "delivery_tag": "tag",
            "expiration": "60000",
        },
    }


@pytest.mark.parametrize("header", ["id", "task"])
def test_ids_and_names_with_half_a_character_are_refused_for_no_store_could_take_them(header: str) -> None:
    headers = {"task": "t", "id": "1", header: "\ud800"}

    with pytest.raises(InvalidTaskError, match="no text as its id or task"):
        unpack_headers(raw([[], {}, None], **headers))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x": float("inf")},
        {"when": datetime.datetime(2030, 1, 1)},
        {"deep": {"a": [1, {"b": b"\xff"}]}},
        {"mark": '{"__type__"'},
        {"half a character": "\ud800"},
    ],
)
def test_an_envelope_comes_back_as_it_was(headers: dict[str, Any]) -> None:
    envelope = sealed(args=[2, 3], headers=headers, properties={"app_id": "mine"} if headers else None)
    envelope.properties.delivery_tag = "tag"

    assert virtual.decode(virtual.encode(envelope, "ex", "key")) == (envelope, "ex", "key")


def test_every_encoding_without_a_tag_gets_a_new_one() -> None:
    envelope = sealed()

    tags = {virtual.decode(virtual.encode(envelope, "", "q"))[0].properties.delivery_tag for _ in range(3)}

    assert len(tags) == 3
    assert None not in tags


def test_plain_bodies_missing_parts_and_unknown_properties_are_read() -> None:
    envelope, exchange, key = virtual.decode(
        b'{"body": "[[], {}, null]", "headers": {"task": "t", "id": "1"},'
        b' "properties": {"priority": "5", "own": 1, "delivery_mode": null}}'
    )

    assert envelope.body == b"[[], {}, null]"
    assert envelope.content_type is None
    assert envelope.properties == Props(priority=5, extra={"own": 1})
    assert (exchange, key) == ("", "")


def test_a_plain_body_that_looks_like_base64_stays_as_it_is() -> None:
    raw_body = (
        b'{"body": "abcd", "headers": {}, "properties": {"delivery_info": {}, "body_encoding": "utf-8"}}'
    )

    assert virtual.decode(raw_body)[0].body == b"abcd"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"body": 5}',
        b'{"body": "x", "headers": []}',
        b'{"body": "x", "properties": "p"}',
        b'{"body": "x", "properties": {"delivery_info": []}}',
        b'{"body": "a", "properties": {"body_encoding": "base64"}}',
        b'{"body": "\\ud800"}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_envelope_is_a_decode_error(document: bytes) -> None:
    with pytest.raises(DecodeError):
        virtual.decode(document)


def test_a_message_from_whose_end_nothing_follows_is_seen_without_being_decoded() -> None:
    nothing = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

    assert is_alone(sealed(args=(2, 3)))
    assert is_alone(raw([[2, 3], {}, nothing]))  # as Celery spaces it


@pytest.mark.parametrize("part", ["errbacks", "chain", "chord"])
def test_a_message_from_whose_end_something_follows_is_not_alone(part: str) -> None:
    follows = {"callbacks": None, "errbacks": None, "chain": None, "chord": None, part: [{"task": "t"}]}
    headers, body, props = compose(TaskMessage(task="app.add", id=ID))
    body[2][part] = follows[part]

    assert not is_alone(seal(headers, body, props, Codecs()))
    assert not is_alone(raw([[], {}, follows]))
