"""A child's inbox takes whatever a message may hold."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from celeriac.message import Job
from celeriac.pools.prefork.inbox import Inbox, Mail
from pool_harness import job


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    made = Inbox()
    yield made
    made.close()


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63) + 1, 2**64, -(2**200), 10**400])
def test_a_number_of_any_size_in_a_header_harms_nobody(inbox: Inbox, number: int) -> None:
    headers = {"task": "add", "id": "x", "mine": [{"deep": number}], "plain": 1}

    inbox.put(msgspec.structs.replace(job("add"), headers=headers, delivery_info={"priority": number}))

    received = Mail(inbox.far).poll()
    assert isinstance(received, Job)
    travels = abs(number) < 2**63
    assert received.headers["mine"] == [{"deep": number if travels else str(number)}]
    assert received.headers["plain"] == 1


def test_half_a_character_in_a_header_harms_nobody(inbox: Inbox) -> None:
    headers = {"task": "add", "id": "x", "mine": "\ud800 half", "grüß": "🌱"}

    inbox.put(msgspec.structs.replace(job("add"), headers=headers, reply_to="\udfff"))

    received = Mail(inbox.far).poll()
    assert isinstance(received, Job)
    assert received.headers == {"task": "add", "id": "x", "mine": "\\ud800 half", "grüß": "🌱"}
    assert received.reply_to == "\\udfff"
