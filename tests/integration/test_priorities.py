"""Which of the waiting tasks is first: as with Celery, or by one setting 9 on every broker."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.testing.worker import start_worker

TIMEOUT = 60.0
SENT = [4, 0, 9, 2, 7, 5, 9, 1, 3, 8, 6, 0]
MakeApp = Callable[..., Celeriac]


@pytest.fixture(params=["memory", "sqlite", "redis", "amqp"])
def broker(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def make_app(broker: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeApp]:
    """Make an app of the broker with settings."""
    apps = []
    match broker:
        case "memory":
            url = f"memory://{uuid.uuid4().hex}"
        case "sqlite":
            url = f"sqlite:///{tmp_path}/q.db"
        case _:
            url = request.getfixturevalue(f"{'rabbitmq' if broker == 'amqp' else broker}_url")

    def make(**settings: Any) -> Celeriac:
        apps.append(Celeriac("proj", broker=url, set_as_current=False, **settings))
        return apps[-1]

    yield make
    for app in apps:
        app.close()


def order(app: Celeriac) -> list[int]:
    """Return in which order a worker runs what was sent before with those priorities."""
    ran: list[int] = []
    over = threading.Event()

    @app.task(name="note", ignore_result=True)
    def note(priority: int) -> None:
        ran.append(priority)
        if len(ran) == len(SENT):
            over.set()

    for priority in SENT:
        note.apply_async((priority,), priority=priority)
    with start_worker(app, pool="threads", prefetch_multiplier=1):
        assert over.wait(TIMEOUT)
    return ran


def test_nine_is_first_on_every_broker_where_the_setting_says_so(make_app: MakeApp) -> None:
    assert order(make_app(task_priority_high_first=True)) == sorted(SENT, reverse=True)


def test_redis_keeps_its_own_sense_and_the_others_theirs(broker: str, make_app: MakeApp) -> None:
    ran = order(make_app(task_queue_max_priority=9))

    if broker == "redis":  # 0 is first, and there are four steps
        assert [priority // 3 for priority in ran] == sorted(priority // 3 for priority in SENT)
    else:
        assert ran == sorted(SENT, reverse=True)
