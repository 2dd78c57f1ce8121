"""Whatever is written is read back, whatever is read does no harm."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from celeriac.codecs import Codecs
from celeriac.codecs.compress import compress, decompress
from celeriac.errors import CodecError, DecodeError, InvalidTaskError
from celeriac.message import Outcome
from celeriac.saferepr import saferepr
from celeriac.wire import virtual
from celeriac.wire.result import pack, restore_value, unpack
from celeriac.wire.task import TaskMessage, compose, seal, unpack_call, unpack_headers, upgrade

CODECS = Codecs()
EVERYTHING = CODECS.accept_set(["json", "yaml", "msgpack", "pickle"])
JSON = CODECS.accept_set(["json"])

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
extended = (
    scalars
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.uuids()
    | st.binary()
    | st.decimals(allow_nan=False)
)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.text().filter(lambda key: key not in ("__type__", "__value__"))
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=20)


@given(nested(extended))
def test_json_gives_back_every_value_of_its_types(value: Any) -> None:
    content_type, encoding, data = CODECS.encode(value, "json")

    assert CODECS.decode(data, content_type, encoding, JSON) == value


@given(nested(scalars))
def test_json_is_read_by_pythons_json(value: Any) -> None:
    assert json.loads(CODECS.encode(value, "json")[2]) == value


@given(nested(scalars | st.just(math.inf)))
def test_json_of_pythons_json_is_read(value: Any) -> None:
    assert CODECS.decode(json.dumps(value).encode(), "application/json", "utf-8", JSON) == value


@given(st.binary() | st.text().map(str.encode), st.sampled_from(["json", "yaml", "msgpack", "raw"]))
def test_no_bytes_get_more_than_a_decode_error_out_of_a_decoder(data: bytes, serializer: str) -> None:
    with contextlib.suppress(DecodeError):
        CODECS.decode(data, CODECS.content_type(serializer), "utf-8", EVERYTHING)


@given(
    st.lists(nested(extended), max_size=4),
    st.dictionaries(st.text(), nested(extended), max_size=3),
    st.dictionaries(st.text(min_size=1).map("x-{}".format), nested(extended), max_size=2),
    st.sampled_from([None, "zlib", "zstd"]),
    st.integers(0, 9),
)
def test_a_task_message_survives_the_redis_envelope(
    args: list[Any], kwargs: dict[str, Any], headers: dict[str, Any], compression: str | None, priority: int
) -> None:
    message = TaskMessage(task="t", id="1", args=args, kwargs=kwargs, headers=headers, priority=priority)
    try:
        envelope = seal(*compose(message), CODECS, "json", compression)
        raw = virtual.encode(envelope, "ex", "rk", "tag")
    except CodecError:
        raise AssertionError("every one of these values has a form in JSON") from None

    back, exchange, routing_key = virtual.decode(raw)

    assert (exchange, routing_key, back.properties.priority) == ("ex", "rk", priority)
    assert back.headers == envelope.headers
    assert unpack_headers(back).id == "1"
    call = unpack_call(
        back.body,
        back.content_type,
        back.content_encoding,
        back.headers.get("compression"),
        CODECS,
        JSON,
        1 << 20,
    )
    assert (call.args, call.kwargs) == (args, kwargs)


@given(st.binary() | nested(scalars).map(lambda value: json.dumps(value).encode()))
def test_no_list_element_gets_more_than_typed_errors_out_of_the_reader(raw: bytes) -> None:
    try:
        envelope = virtual.decode(raw)[0]
        upgrade(envelope, CODECS, JSON)
        unpack_headers(envelope)
    except (DecodeError, InvalidTaskError):
        pass


@given(nested(extended), st.sampled_from(["json", "pickle"]))
def test_results_are_read_back(value: Any, serializer: str) -> None:
    outcome = Outcome(id="1", state="SUCCESS", result=value, children=[])

    assert unpack(pack(outcome, CODECS, serializer), CODECS, serializer=serializer) == outcome


@given(st.binary(max_size=2000), st.sampled_from(["zlib", "bzip2", "xz", "brotli", "zstd"]))
def test_compression_gives_back_what_went_in(data: bytes, name: str) -> None:
    assert decompress(name, compress(name, data)[0], max_bytes=len(data)) == data


@given(st.binary(max_size=200), st.sampled_from(["zlib", "bzip2", "xz", "brotli", "zstd"]))
def test_no_bytes_get_more_than_a_decode_error_out_of_decompression(data: bytes, name: str) -> None:
    with contextlib.suppress(DecodeError):
        assert len(decompress(name, data, max_bytes=100)) <= 100


@given(
    nested(extended | st.complex_numbers(allow_nan=False) | st.frozensets(st.integers())),
    st.integers(10, 300),
)
def test_saferepr_is_repr_up_to_its_limit(value: Any, limit: int) -> None:
    text = saferepr(value, limit)

    assert len(text) <= limit
    if "int of" not in text and "[...]" not in text and "{...}" not in text:
        whole = repr(value)
        assert text == (whole if len(whole) <= limit else whole[: limit - 3] + "...")


modules = st.sampled_from([*sorted(sys.modules)]) | st.text()
names = (
    st.sampled_from(["system", "Popen", "eval", "SystemExit", "KeyError", "loads", "path.join"]) | st.text()
)
hostile = st.fixed_dictionaries(
    {"exc_type": names, "exc_module": modules | scalars, "exc_message": nested(scalars)}
)


@given(hostile | nested(scalars))
def test_whatever_is_stored_as_a_failure_is_an_exception_that_ends_nobody(value: Any) -> None:
    imported = set(sys.modules)

    for state in ("FAILURE", "RETRY", "REVOKED"):
        result = restore_value(state, value)

        assert isinstance(result, Exception) or (value is None and state != "FAILURE")
    assert set(sys.modules) == imported


@given(st.lists(nested(extended), max_size=4))
def test_exceptions_keep_their_class_and_arguments(args: list[Any]) -> None:
    outcome = Outcome(id="i", state="FAILURE", result=ValueError(*args))

    found = unpack(pack(outcome, CODECS), CODECS, JSON)

    assert type(found.result) is ValueError
    assert list(found.result.args) == args
