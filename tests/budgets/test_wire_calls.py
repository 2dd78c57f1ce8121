"""How many Python calls a message costs on its way out and in; a number that grows is a hop that crept in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from celeriac.codecs import Codecs
from celeriac.message import Outcome
from celeriac.wire import virtual
from celeriac.wire.result import pack
from celeriac.wire.task import TaskMessage, compose, seal, unpack_call, unpack_headers

CODECS = Codecs()
ACCEPT = CODECS.accept_set(["json"])


def calls(work: Callable[[], object]) -> int:
    """Return how many Python functions run below ``work``."""
    count = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    work()  # imports and caches
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count - 1


def message() -> bytes:
    sent = TaskMessage(task="t", id="1", args=(2, 3), kwargs={"x": 1}, reply_to="r")
    return virtual.encode(seal(*compose(sent), CODECS), "", "celery", "tag")


def test_sending_a_message_takes_at_most_twelve_calls() -> None:
    assert calls(message) <= 12


def test_receiving_a_message_takes_at_most_eight_calls() -> None:
    raw = message()

    def receive() -> None:
        envelope = virtual.decode(raw)[0]
        unpack_headers(envelope)
        unpack_call(envelope.body, envelope.content_type, "utf-8", None, CODECS, ACCEPT, 1000)

    assert calls(receive) <= 8


def test_packing_a_plain_result_takes_one_call() -> None:
    outcome = Outcome(id="1", state="SUCCESS", result=5, children=[])

    assert calls(lambda: pack(outcome, CODECS)) <= 1
