"""Workers of ours that know of each other: what one was told before the other came, and what they decide."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.errors import TaskRevokedError
from celeriac.message import Broadcast, Envelope, Props
from celeriac.queues import Exchange
from celeriac.testing.worker import start_worker

TIMEOUT = 20.0
COMPANY: dict[str, Any] = {
    "pool": "threads",
    "without_gossip": False,
    "without_mingle": False,
    "heartbeat_interval": 0.2,
}


@pytest.fixture(params=["memory", "sqlite", "redis", "amqp"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celeriac]:
    file = f"sqlite:///{tmp_path}/q.db"
    match request.param:
        case "memory":
            broker = backend = f"memory://{uuid.uuid4().hex}"
        case "redis":
            broker = backend = request.getfixturevalue("redis_url")
        case "amqp":
            broker, backend = request.getfixturevalue("rabbitmq_url"), file
        case _:
            broker = backend = file
    app = Celeriac("proj", broker=broker, backend=backend, set_as_current=False)
    yield app
    app.close()


def until(look: Callable[[], Any]) -> Any:
    """Return what is true at last."""
    end = time.monotonic() + TIMEOUT
    while not (found := look()):
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.02)
    return found


def test_who_starts_learns_what_was_revoked_before_and_runs_none_of_it(app: Celeriac) -> None:
    ran: list[str] = []

    @app.task(name="note")
    def note(text: str) -> None:
        ran.append(text)

    app.clock.adjust(1000)
    with start_worker(app, hostname="w1@here", queues=("other",), **COMPANY):
        revoked, other = note.delay("revoked"), note.delay("other")
        app.control.revoke(revoked.id, destination=["w1@here"], reply=True, timeout=TIMEOUT)

        with start_worker(app, hostname="w2@here", queues=("celery",), **COMPANY):
            other.get(timeout=TIMEOUT)
            with pytest.raises(TaskRevokedError):
                revoked.get(timeout=TIMEOUT)
            answers = app.control.inspect(["w2@here"], timeout=TIMEOUT).revoked()
            assert answers == {"w2@here": [revoked.id]}
    assert ran == ["other"]


@pytest.mark.parametrize("app", ["redis", "amqp"], indirect=True)
def test_one_of_several_does_what_they_were_told_to_choose_one_for(
    app: Celeriac, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "celery.worker.consumer.gossip")
    ran: list[str] = []
    done = threading.Event()

    @app.task(name="note")
    def note(text: str) -> None:
        ran.append(text)
        if text == "last":
            done.set()

    def said(text: str) -> int:
        return sum(text in record.getMessage() for record in list(caplog.records))

    with start_worker(app, hostname="w1@here", **COMPANY), start_worker(app, hostname="w2@here", **COMPANY):
        until(lambda: said("w1@here has joined") and said("w2@here has joined"))
        nonsense = Envelope(headers={}, body=b'{"type": "worker-elect", "hostname": "x"}', properties=Props())
        events = Exchange(name="celeryev", type="topic", durable=True)
        fanout = app.transport.fanout()
        fanout.publish(
            [Broadcast(envelope=nonsense, exchange=events, routing_key="worker.elect")], deadline=TIMEOUT
        )
        fanout.close()

        note.s("elected").election()
        until(lambda: said("I won the election") + said(" elected for ") == 2)
        until(lambda: ran)
        note.delay("last")
        assert done.wait(TIMEOUT)
    assert (ran, said("I won the election")) == (["elected", "last"], 1)
    assert said("is ignored, as will be others") == 2  # once at each
