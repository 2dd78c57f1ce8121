"""What messages and queues ask of a broker that keeps messages itself."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.errors import TransportError
from celeriac.message import Envelope, Props
from celeriac.transports.terms import Terms, dead_letter_address, terms_of

NOW = 1_000.0


def terms(
    arguments: dict[str, Any] | None = None, headers: dict[str, Any] | None = None, **props: Any
) -> Terms:
    envelope = Envelope(headers=headers or {}, body=b"", properties=Props(**props))
    return terms_of(envelope, arguments or {}, NOW)


def test_a_plain_message_is_kept_for_ever() -> None:
    assert terms() == Terms(0, None)
    assert not terms().expired(NOW * 2)


@pytest.mark.parametrize(("asked", "highest", "given"), [(5, 9, 5), (50, 9, 9), (-3, 9, 0), (999, 255, 255)])
def test_priorities_stay_within_what_the_queue_knows(asked: int, highest: int, given: int) -> None:
    assert terms({"x-max-priority": highest}, priority=asked).priority == given


def test_the_shorter_life_counts() -> None:
    assert terms({"x-message-ttl": 5000}, expiration="60000").expires_at == NOW + 5
    assert terms({"x-message-ttl": 60000}, expiration="5000").expires_at == NOW + 5
    assert terms(expiration="0").expired(NOW)


def test_a_task_that_says_when_it_expires_is_left_to_the_worker() -> None:
    assert terms(headers={"expires": "2030-01-01T00:00:00+00:00"}, expiration="1").expires_at is None
    assert terms(headers={"expires": None}, expiration="1000").expires_at == NOW + 1


def test_an_expiration_that_is_no_number_is_refused() -> None:
    with pytest.raises(TransportError, match="soon"):
        terms(expiration="soon")


def test_the_dead_letter_address() -> None:
    assert dead_letter_address({}, "key") is None
    assert dead_letter_address({"x-dead-letter-exchange": "dlx"}, "key") == ("dlx", "key")
    assert dead_letter_address(
        {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}, "key"
    ) == ("", "dead")
