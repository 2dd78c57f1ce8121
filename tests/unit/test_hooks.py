"""Signals: who is called, with what, and what happens to what they raise."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from celeriac.hooks import SIGNALS, Hooks, Signal


def test_receivers_get_signal_sender_and_the_named_arguments() -> None:
    signal = Signal(name="happened")
    seen: list[dict[str, Any]] = []

    @signal.connect
    def receiver(**kwargs: Any) -> str:
        seen.append(kwargs)
        return "answer"

    responses = signal.send("proj.add", task_id="1")

    assert responses == [(receiver, "answer")]
    assert seen == [{"signal": signal, "sender": "proj.add", "task_id": "1"}]


def test_the_decorator_takes_arguments() -> None:
    signal = Signal()
    seen: list[Any] = []

    @signal.connect(sender="a", weak=False)
    def receiver(sender: Any = None, **kwargs: Any) -> None:
        seen.append(sender)

    signal.send("a")
    signal.send("b")

    assert seen == ["a"]


def test_text_senders_are_compared_by_value_and_objects_by_identity() -> None:
    signal, task, other = Signal(), object(), object()
    seen: list[Any] = []

    def receiver(sender: Any = None, **kwargs: Any) -> None:
        seen.append(sender)

    signal.connect(receiver, sender=str(b"proj", "ascii"))
    signal.connect(receiver, sender=task)
    signal.send("proj")
    signal.send(other)
    signal.send(task)

    assert seen == ["proj", task]


def test_connecting_twice_connects_once_and_a_dispatch_uid_names_a_receiver() -> None:
    signal = Signal()

    def one(**kwargs: Any) -> None: ...
    def two(**kwargs: Any) -> None: ...

    signal.connect(one)
    signal.connect(one)
    signal.connect(two, dispatch_uid="same")
    signal.connect(one, dispatch_uid="same")

    assert len(signal.receivers) == 2


def test_what_a_receiver_raises_is_logged_and_returned(caplog: pytest.LogCaptureFixture) -> None:
    signal = Signal()
    error = RuntimeError("no")
    called = []

    def broken(**kwargs: Any) -> None:
        raise error

    def whole(**kwargs: Any) -> None:
        called.append(1)

    signal.connect(broken)
    signal.connect(whole)
    responses = signal.send(None)

    assert [response for _, response in responses] == [error, None]
    assert called == [1]
    assert "raised: RuntimeError('no')" in caplog.text


def test_a_receiver_without_kwargs_is_refused() -> None:
    def narrow(sender: Any = None) -> None: ...

    with pytest.raises(ValueError, match=r"\*\*kwargs"):
        Signal().connect(narrow)


def test_receivers_are_held_weakly_unless_told_otherwise() -> None:
    signal = Signal()

    class Owner:
        def method(self, **kwargs: Any) -> None: ...

    owner = Owner()
    signal.connect(owner.method)
    signal.connect(lambda **kwargs: None, weak=False)
    assert len(signal.receivers) == 2

    del owner
    gc.collect()

    assert len(signal.receivers) == 1


def test_disconnect_says_whether_it_was_connected() -> None:
    signal = Signal()

    def receiver(**kwargs: Any) -> None: ...

    signal.connect(receiver, sender="a")

    assert signal.has_listeners("a")
    assert not signal.has_listeners("b")
    assert signal.disconnect(receiver, sender="b") is False
    assert signal.disconnect(receiver, sender="a") is True
    assert signal.receivers == []


def test_a_receiver_that_asks_for_it_is_called_until_it_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = Signal()
    pauses: list[float] = []
    monkeypatch.setattr("celeriac.hooks.time.sleep", pauses.append)
    failures = [ValueError(), ValueError()]

    def stubborn(**kwargs: Any) -> str:
        if failures:
            raise failures.pop()
        return "done"

    signal.connect(stubborn, retry=True, weak=False)

    assert [response for _, response in signal.send(None)] == ["done"]
    assert pauses == [2.0, 4.0]


def test_there_is_a_hook_for_every_signal() -> None:
    hooks = Hooks()

    for name in SIGNALS:
        assert isinstance(hooks.get(name), Signal)
        assert hooks.get(name).name == name
    assert set(SIGNALS) == set(Hooks.__annotations__)
