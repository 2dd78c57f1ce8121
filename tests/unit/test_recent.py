"""What a node remembers of what it has finished."""

from __future__ import annotations

import pytest

from celeriac.copies import COPY_HEADER
from celeriac.message import Ack, Envelope, Props, Requeue, TaskHeaders
from celeriac.node.recent import Recent

HEADERS = TaskHeaders(task="add", id="one")


def message(*, tag: str | None = None, copy: object = None, body: bytes = b"") -> Envelope:
    headers = {} if copy is None else {COPY_HEADER: copy}
    return Envelope(headers=headers, body=body, properties=Props(delivery_tag=tag))


@pytest.fixture
def recent() -> Recent:
    return Recent()


def test_a_message_that_was_finished_is_known(recent: Recent) -> None:
    recent.note(HEADERS, message(tag="a"), Ack())

    assert recent.verdict_of(HEADERS, message(tag="a")) == Ack()


def test_one_that_was_put_back_is_not(recent: Recent) -> None:
    recent.note(HEADERS, message(), Ack())
    recent.note(HEADERS, message(), Requeue())

    assert recent.verdict_of(HEADERS, message()) is None


def test_a_retry_and_what_replaces_a_task_are_other_messages(recent: Recent) -> None:
    recent.note(HEADERS, message(), Ack())

    assert recent.verdict_of(TaskHeaders(task="add", id="one", retries=1), message()) is None
    assert recent.verdict_of(TaskHeaders(task="add", id="one", replaced_task_nesting=1), message()) is None


def test_so_are_the_copies_of_a_body(recent: Recent) -> None:
    recent.note(HEADERS, message(copy="chord/dropped"), Ack())

    assert recent.verdict_of(HEADERS, message(copy="chord/claimed")) is None


@pytest.mark.parametrize("copy", [["a"], {"a": 1}, 3])
def test_a_copy_that_is_no_word_harms_nobody(recent: Recent, copy: object) -> None:
    recent.note(HEADERS, message(copy=copy), Ack())

    assert recent.verdict_of(HEADERS, message(copy=copy)) == Ack()


def test_another_call_under_the_same_id_is_not_known(recent: Recent) -> None:
    recent.note(HEADERS, message(tag="yesterday"), Ack())

    assert recent.verdict_of(HEADERS, message(tag="today")) is None


def test_nor_are_another_task_and_other_arguments_where_messages_have_no_marks(recent: Recent) -> None:
    recent.note(HEADERS, message(body=b"[1]"), Ack())

    assert recent.verdict_of(HEADERS, message(body=b"[2]")) is None
    assert recent.verdict_of(TaskHeaders(task="mul", id="one"), message(body=b"[1]")) is None


def test_a_message_that_comes_for_the_first_time_makes_earlier_ones_forgotten(recent: Recent) -> None:
    # Given a transport whose messages have no marks of their own
    recent.note(HEADERS, message(), Ack())

    recent.forget(HEADERS, message())

    assert recent.verdict_of(HEADERS, message()) is None


def test_a_copy_that_was_sent_in_doubt_is_one_of_the_same_call_whatever_its_mark(recent: Recent) -> None:
    recent.note(HEADERS, message(tag="first"), Ack())

    assert recent.has_turn(HEADERS, message(tag="second"))
