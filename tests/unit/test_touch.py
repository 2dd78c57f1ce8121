"""What begins while it is not certain that the broker hears the node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac.node.touch import WINDOW_SECONDS, Touch
from celeriac.ports import Caps


class Broker:
    """A consumer whose broker answers when the test says so."""

    def __init__(self) -> None:
        self.heard_at = 0.0
        self.asked: list[Callable[[bool], None]] = []

    def touch(self, done: Callable[[bool], None]) -> None:
        self.asked.append(done)

    def answer(self) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        self.asked.pop()(True)


def touch_of(broker: Broker, on_touch: Callable[[], None], *, sure: bool = True, **caps: bool) -> Touch:
    transport = SimpleNamespace(caps=Caps(**{"hands_over": True, **caps}))
    link: Any = SimpleNamespace(sure=sure, transport=transport, consumer=broker)
    return Touch(link, on_touch)


async def test_nothing_begins_before_a_silent_broker_has_answered() -> None:
    broker, touched = Broker(), asyncio.Event()
    touch = touch_of(broker, touched.set)

    before = [touch.certain(), touch.certain()]
    asked = len(broker.asked)
    broker.answer()

    assert (before, asked) == ([False, False], 1)
    assert touched.is_set()
    assert touch.certain()


async def test_who_has_just_been_answered_asks_nothing() -> None:
    broker = Broker()
    broker.heard_at = asyncio.get_running_loop().time() + 60.0  # as a test may be slow

    assert touch_of(broker, lambda: None).certain()
    assert not broker.asked


async def test_the_next_answer_is_asked_for_before_it_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celeriac.node.touch.WINDOW_SECONDS", 3600.0)
    broker = Broker()
    broker.heard_at = asyncio.get_running_loop().time() - WINDOW_SECONDS

    assert touch_of(broker, lambda: None).certain()
    assert len(broker.asked) == 1


async def test_a_broker_that_could_not_be_asked_is_asked_again() -> None:
    broker, again = Broker(), asyncio.Event()
    touch = touch_of(broker, again.set)

    touch.certain()
    broker.asked.pop()(False)
    at_once = again.is_set()
    await again.wait()
    touch.certain()

    assert not at_once
    assert len(broker.asked) == 1


@pytest.mark.parametrize("sure", [True, False])
async def test_without_messages_that_are_handed_over_the_lease_decides(sure: bool) -> None:
    broker = Broker()

    assert touch_of(broker, lambda: None, sure=sure, hands_over=False).certain() is sure
    assert not broker.asked
