"""What is sent for later to quorum queues, by real Celery and by us, through the same exchanges."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.queues import Exchange, Queue
from celeriac.testing.worker import start_worker
from fleet import MARKS, Site, wait_until_ready
from servers import RabbitServer

pytestmark = [
    pytest.mark.timeout(400),  # the first test waits for real Celery to be installed
    pytest.mark.together("delayed delivery"),
    *MARKS["rabbitmq"],
]

ANSWER_SECONDS = 60.0
LATE_SECONDS = 10.0  # it takes milliseconds where nothing else runs
DIGITS = "0.0.0."  # real Celery leaves them in the routing key


class Pair:
    """A worker of ours, started first, and a real one, in which real Celery is a client too.

    Before there is any, and any of the exchanges, a call for the real one is sent by our client.
    """

    def __init__(self, site: Site, stack: ExitStack) -> None:
        queues = [
            Queue(
                name=name,
                exchange=Exchange(name=name, type="topic"),
                routing_key=name,
                arguments={"x-queue-type": "quorum"},
            )
            for name in ("celery", "real", "ours")
        ]
        app = Celeriac("program", broker=site.broker, backend=site.results, task_queues=queues)
        self._app = app
        stack.callback(app.close)

        @app.task(bind=True, name="program.moment")
        def moment(self: Any, again: float | None = None) -> list[Any]:
            if again is not None and not self.request.retries:
                raise self.retry(countdown=again)
            info, headers = self.request.delivery_info, self.request.headers or {}
            return [time.time(), "ours", info["exchange"], info["routing_key"], "x-death" in headers]

        self.moment = moment
        self.ours("real", 1.2)  # by now there is a way
        self.first = self.ours("real", 2.0)
        app.router.select("ours,celery")
        stack.enter_context(start_worker(app, pool="threads"))
        # Its pool of threads acknowledges when something else wakes it, so it has to have room until then.
        real = site.start("real", "-Q", "real,celery", "-P", "threads", "--prefetch-multiplier", "8")
        wait_until_ready(real)

    def ours(self, queue: str, countdown: float, again: float | None = None) -> Any:
        """Have our client send a call, and return its result to come."""
        return self.moment.apply_async((again,), queue=queue, countdown=countdown)

    def real(self, queue: str, countdown: float, again: float | None = None, count: int = 1) -> list[Any]:
        """Have real Celery send calls, and return their results to come."""
        call = (queue, countdown, again, count)
        sent = self._app.send_task("program.sends_for_later", call, queue="real")
        return [self._app.AsyncResult(task_id) for task_id in sent.get(timeout=ANSWER_SECONDS)]


@pytest.fixture(scope="module")
def pairs() -> Iterator[tuple[list[Pair], ExitStack]]:
    with ExitStack() as stack:
        yield [], stack


@pytest.fixture
def pair(
    pairs: tuple[list[Pair], ExitStack],
    celery_python: Path,
    rabbitmq_server: RabbitServer,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Pair:
    made, stack = pairs
    if not made:
        site = Site(
            celery_python,
            tmp_path_factory.mktemp("delays"),
            rabbitmq_server.fresh_url(),
            redis_url,
            PROGRAM_QUEUE_TYPE="quorum",
        )
        stack.callback(site.close)
        made.append(Pair(site, stack))
    return made[0]


def test_what_we_have_sent_before_there_was_any_worker_runs_in_a_real_one(pair: Pair) -> None:
    _, side, _, key, waited = pair.first.get(timeout=ANSWER_SECONDS)

    assert (side, waited) == ("real", True)
    assert key.startswith(DIGITS)
    assert key.endswith(".real")


def test_what_real_celery_sends_for_later_runs_in_our_worker_and_is_retried(pair: Pair) -> None:
    begun = time.time()

    [result] = pair.real("ours", countdown=1, again=1.2)

    at, side, exchange, key, waited = result.get(timeout=ANSWER_SECONDS)
    assert side == "ours"
    assert (exchange, key) == ("ours", "ours")
    assert waited
    assert 2.2 <= at - begun < 2.2 + LATE_SECONDS


def test_what_we_send_for_later_runs_in_a_real_worker_when_it_is_due(pair: Pair) -> None:
    begun = time.time()

    at, side, _, key, waited = pair.ours("real", countdown=2.2).get(timeout=ANSWER_SECONDS)

    assert (side, waited) == ("real", True)
    assert key.startswith(DIGITS)
    assert 2.2 <= at - begun < 2.2 + LATE_SECONDS


def test_workers_of_both_sides_share_what_was_sent_for_later(pair: Pair) -> None:
    sent = [pair.ours("celery", countdown=1.5) for _ in range(20)]
    sent += pair.real("celery", countdown=1, count=20)

    answers = [result.get(timeout=ANSWER_SECONDS) for result in sent]
    assert all(waited for *_, waited in answers)
    assert {side for _, side, *_ in answers} == {"ours", "real"}
