"""Workers of ours that know of each other: what one was told before the other came, and what they decide."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.errors import TaskRevokedError
from celeriac.message import Broadcast, Envelope, Props
from celeriac.queues import Exchange
from celeriac.testing.worker import start_worker
from worker_program import until

TIMEOUT = 20.0
COMPANY: dict[str, Any] = {
    "pool": "threads",
    "without_gossip": False,
    "without_mingle": False,
    "heartbeat_interval": 0.2,
}


@pytest.fixture
def app(everywhere: Celeriac) -> Celeriac:
    return everywhere


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


@pytest.mark.parametrize("everywhere", ["redis", "amqp"], indirect=True)
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
