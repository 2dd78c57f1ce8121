"""How much RabbitMQ is told that it may send."""

from __future__ import annotations

import pytest

from celeriac.transports.amqp.allowance import Allowance


def begun(allowance: Allowance, count: int) -> Allowance:
    for tag in range(count):
        allowance.note(tag, begun=True)
    return allowance


def test_what_has_begun_takes_room_until_it_ends() -> None:
    allowance = begun(Allowance(3, shared=True), 2)
    during = allowance.limit(1)

    allowance.note(0, begun=False)

    assert (during, allowance.limit(1)) == (1, 2)


def test_it_is_full_when_copies_and_what_has_begun_take_all_of_it() -> None:
    allowance = begun(Allowance(3, shared=True), 2)
    before = allowance.is_full

    allowance.in_custody = 1

    assert (before, allowance.is_full) == (False, True)


def test_no_limit_is_never_full_nor_off() -> None:
    allowance = Allowance(0, shared=True)
    allowance.tell(1)

    begun(allowance, 100)

    assert (allowance.is_full, allowance.is_off(1), allowance.limit(1)) == (False, False, 0)


@pytest.mark.parametrize(
    ("prefetch", "count", "off"), [(2, 1, True), (4, 1, False), (8, 2, False), (8, 3, True)]
)
def test_rabbitmq_is_told_of_what_is_more_than_a_quarter(prefetch: int, count: int, off: bool) -> None:
    allowance = Allowance(prefetch, shared=True)
    allowance.tell(1)

    assert begun(allowance, count).is_off(1) is off


def test_a_limit_that_is_not_shared_is_shared_out() -> None:
    assert Allowance(5, shared=False).tell(2) == ("basic.qos", 0, 3, False)


@pytest.mark.parametrize(("shared", "alone"), [(False, False), (True, True)])
def test_what_has_begun_takes_no_room_where_the_limit_cannot_be_changed_at_any_time(
    shared: bool, alone: bool
) -> None:
    allowance = begun(Allowance(2, shared=shared, alone=alone), 2)

    assert (allowance.is_full, allowance.limit(1)) == (False, 2)


def test_what_it_was_told_is_told_once_more_though_another_limit_would_be_due() -> None:
    allowance = Allowance(3, shared=True)
    told = allowance.tell(1)
    begun(allowance, 2)

    assert allowance.repeat(1) == told
    assert allowance.is_off(1)


def test_a_new_connection_knows_nothing_of_the_old_one() -> None:
    allowance = begun(Allowance(2, shared=True), 2)
    allowance.paused = True

    allowance.forget()

    assert (allowance.is_full, allowance.paused, allowance.limit(1)) == (False, False, 2)
