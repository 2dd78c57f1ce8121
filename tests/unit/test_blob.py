"""Envelopes survive being stored."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.errors import EncodeError
from celeriac.message import Envelope, Props
from celeriac.transports.blob import pack, unpack, unpack_or_defect

TEXT = st.none() | st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
HEADERS = st.dictionaries(st.text(), VALUES, max_size=5)
ENVELOPES = st.builds(
    Envelope,
    headers=HEADERS,
    body=st.binary(max_size=200),
    content_type=TEXT,
    content_encoding=TEXT,
    properties=st.builds(
        Props,
        correlation_id=TEXT,
        reply_to=TEXT,
        delivery_mode=st.sampled_from([1, 2]),
        priority=st.integers(0, 255),
        expiration=TEXT,
        message_id=TEXT,
        delivery_tag=TEXT,
        extra=HEADERS,
    ),
)


@given(ENVELOPES)
def test_an_envelope_comes_back_as_it_was(envelope: Envelope) -> None:
    assert unpack(pack(envelope)) == envelope


def test_every_property_there_is_has_its_place() -> None:
    names = msgspec.structs.fields(Props)
    values: dict[str, Any] = {
        field.name: {int: 7, int | None: 7, dict[str, Any]: {"a": 1}}.get(field.type, "text")
        for field in names
    }
    envelope = Envelope(
        headers={"a": 1}, body=b"b", content_type="c", content_encoding="d", properties=Props(**values)
    )

    assert unpack(pack(envelope)) == envelope


@pytest.mark.parametrize("value", [object(), 2**70, "\ud800"])
def test_a_header_without_a_form_is_refused_by_name(value: object) -> None:
    envelope = Envelope(headers={"task": "proj.add", "bad": value}, body=b"", properties=Props())

    with pytest.raises(EncodeError, match=r"proj\.add"):
        pack(envelope)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"\xc1", b"\x93\x01\x02\x03", pack(Envelope(headers={}, body=b"", properties=Props()))[:-3]],
)
def test_bytes_that_are_no_envelope_are_a_defect(data: bytes) -> None:
    envelope, defect = unpack_or_defect(data)

    assert envelope.body == data
    assert defect is not None
