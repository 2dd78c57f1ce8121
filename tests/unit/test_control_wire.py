"""Commands on the wire, and whom they concern."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.errors import DecodeError
from celeriac.wire.control import Command, Terms, concerns, pack, unpack


def test_a_command_that_wants_an_answer_says_where_to() -> None:
    command = Command(method="ping", ticket="t", answer_exchange="reply.celery.pidbox", answer_key="key")

    assert pack(command) == {
        "method": "ping",
        "arguments": {},
        "destination": None,
        "pattern": None,
        "matcher": None,
        "ticket": "t",
        "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "key"},
    }
    assert unpack(pack(command)) == command


def test_one_that_wants_none_does_not() -> None:
    command = Command(method="shutdown", destination=["a@h"])

    assert set(pack(command)) == {"method", "arguments", "destination", "pattern", "matcher"}
    assert unpack(pack(command)) == command


@pytest.mark.parametrize(
    "body",
    [None, [], "ping", {}, {"method": 3}, {"method": "x", "arguments": [1]}, {"method": "x", "reply_to": 1}],
)
def test_what_is_no_command_is_refused(body: Any) -> None:
    with pytest.raises(DecodeError):
        unpack(body)


def test_unknown_keys_and_missing_ones_are_tolerated() -> None:
    assert unpack({"method": "ping", "later": 1}) == Command(method="ping")


@pytest.mark.parametrize(
    ("given", "is_meant"),
    [
        ({}, True),
        ({"destination": ["w1@h"]}, True),
        ({"destination": ["w2@h"]}, False),
        ({"destination": ["w2@h"], "pattern": "w1*", "matcher": "glob"}, False),
        ({"pattern": "w1*", "matcher": "glob"}, True),
        ({"pattern": "w2*", "matcher": "glob"}, False),
        ({"pattern": "w[12]@", "matcher": "pcre"}, True),
        ({"pattern": "x", "matcher": "pcre"}, False),
        ({"pattern": "x"}, True),
    ],
)
def test_whom_a_command_concerns(given: dict[str, Any], is_meant: bool) -> None:
    assert concerns(Command(method="ping", **given), "w1@h") is is_meant


@pytest.mark.parametrize("given", [{"pattern": "(", "matcher": "pcre"}, {"pattern": "x", "matcher": "sql"}])
def test_a_pattern_that_is_none_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        concerns(Command(method="ping", **given), "w1@h")


def test_queues_are_declared_as_celery_declares_them() -> None:
    queue = Terms().node_queue("w1@h")

    assert (queue.name, queue.exchange.name, queue.exchange.type) == (
        "w1@h.celery.pidbox",
        "celery.pidbox",
        "fanout",
    )
    assert (queue.durable, queue.auto_delete, queue.exclusive, queue.exchange.durable) == (
        False,
        True,
        False,
        False,
    )
    assert queue.arguments == {"x-message-ttl": 300_000, "x-expires": 10_000}
    answers = Terms(name="shop", ttl_seconds=None).answer_queue("k")
    assert (answers.name, answers.routing_key) == ("k.reply.shop.pidbox", "k")
    assert answers.arguments == {"x-expires": 10_000}
