"""Where the schedulers of an app whose broker is RabbitMQ agree."""

from __future__ import annotations

from typing import Any

from celeriac import Celeriac
from celeriac.connections import connect_timetable
from celeriac.timetable import SendsAlong, Timetable

RABBITMQ = "amqp://guest:secret@127.0.0.1:1//"
REDIS = "redis://127.0.0.1:1/0"


def timetable_of(**settings: Any) -> tuple[Timetable, str]:
    """Return it, and the address of the broker; nothing connects."""
    app = Celeriac("agree", broker=RABBITMQ, **settings)
    found = connect_timetable(app.conf, app.transport, lambda: app.backend, app_name=app.main)
    return found, app.transport.address


def test_beside_results_on_redis_they_agree_there() -> None:
    found, _ = timetable_of(result_backend=REDIS)

    assert not isinstance(found, SendsAlong)
    assert found.address.startswith("redis://")


def test_with_rabbitmqs_own_url_a_call_and_its_note_are_one_step() -> None:
    found, broker = timetable_of(result_backend=REDIS, beat_store_url=RABBITMQ)

    assert isinstance(found, SendsAlong)
    assert found.address == broker
    assert "secret" not in broker
