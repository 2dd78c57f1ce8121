"""The embedded broker tells where a task is, and so unknown from queued."""

from __future__ import annotations

from pathlib import Path

import pytest

from celeriac.app import Celeriac
from celeriac.message import DeadLetter, Start
from celeriac.ports import ConsumeSpec
from celeriac.queues import Queue


@pytest.fixture
def app(tmp_path: Path) -> Celeriac:
    return Celeriac("proj", broker=f"sqlite:///{tmp_path}/queue.db", backend="sqlite://")


async def test_a_task_is_followed_from_the_queue_to_its_end(app: Celeriac) -> None:
    now = app.send_task("proj.now", [1])
    later = app.send_task("proj.later", [now.id], countdown=600)
    other = Celeriac("proj", broker=app.conf.broker_url, backend="sqlite://")

    def known(id: str) -> str:
        result = other.AsyncResult(id)
        assert result.state == "PENDING"
        return result.known_state

    assert (known(now.id), known(later.id), known("nobody"), known("")) == (
        "QUEUED",
        "SCHEDULED",
        "UNKNOWN",
        "UNKNOWN",
    )
    queues = (Queue(name="celery"),)
    consumer = await app.transport.consumer(ConsumeSpec(queues=queues, node="one@here"))
    [delivery] = await consumer.receive(10)
    assert known(now.id) == "RECEIVED"
    await consumer.settle([(delivery, Start())])
    assert known(now.id) == "STARTED"
    await consumer.settle([(delivery, DeadLetter("no good"))])
    assert known(now.id) == "REJECTED"
    assert other.AsyncResult(now.id).exists()
    app.transport.purge("celery")
    assert known(later.id) == "UNKNOWN"
    assert later.known_state == "UNKNOWN"  # the broker knows better than who sent it
    await consumer.close()
    app.close()
    other.close()


def test_without_a_result_backend_the_broker_can_be_asked_all_the_same(tmp_path: Path) -> None:
    app = Celeriac("proj", broker=f"sqlite:///{tmp_path}/queue.db", backend="disabled")

    assert app.send_task("proj.now").known_state == "QUEUED"
    app.close()
