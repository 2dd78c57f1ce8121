"""What child and parent tell each other through shared memory."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from celeriac.pools.prefork.board import OUTBOX_BYTES, READY, STARTING, Board


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board(3)
    yield board
    board.close()


def test_both_sides_see_the_same_words(board: Board) -> None:
    child, parent = board.slot(1), board.slot(1)

    child.ready(4711)
    child.begin(17, 1234.5)
    child.note_memory(2048)

    assert (parent.pid, parent.phase, parent.job, parent.started, parent.memory_kib) == (
        4711,
        READY,
        17,
        1234.5,
        2048,
    )


def test_slots_do_not_touch_each_other(board: Board) -> None:
    board.slot(1).begin(17, 1.0)
    board.slot(1).post(b"x")

    assert board.slot(0).job == board.slot(2).job == 0
    assert [list(board.slot(i).take()) for i in range(3)] == [[], [b"x"], []]


def test_reports_come_out_once_and_in_order(board: Board) -> None:
    child, parent = board.slot(0), board.slot(0)

    assert child.post(b"one")
    assert child.post(b"")
    first = list(parent.take())
    assert child.post(b"two")
    second = list(parent.take())

    assert (first, second, list(parent.take())) == ([b"one", b""], [b"two"], [])


def test_a_full_outbox_refuses_and_takes_more_when_it_was_read(board: Board) -> None:
    child, parent = board.slot(0), board.slot(0)
    report = b"r" * 1000
    posted = 0

    while child.post(report):
        posted += 1

    assert 0 < OUTBOX_BYTES - posted * 1004 <= 1004
    assert list(parent.take()) == [report] * posted
    assert child.post(report)


def test_no_report_is_mangled_however_often_the_ring_goes_round(board: Board) -> None:
    child, parent = board.slot(2), board.slot(2)
    chance = random.Random(7)
    expected: list[bytes] = []
    received: list[bytes] = []

    for number in range(3000):
        report = number.to_bytes(4, "big") + chance.randbytes(chance.randrange(0, 3000))
        while not child.post(report):
            received.extend(parent.take())
        expected.append(report)
    received.extend(parent.take())

    assert received == expected


def test_a_new_child_finds_its_slot_empty(board: Board) -> None:
    slot = board.slot(0)
    slot.ready(1)
    slot.begin(5, 1.0)
    slot.post(b"left over")

    slot.reset()

    assert (slot.pid, slot.phase, slot.job, list(slot.take())) == (0, STARTING, 0, [])
