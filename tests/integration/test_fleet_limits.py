"""Only so many of a task run at a time, or begin in a time, in all workers together; each runs once."""

from __future__ import annotations

import signal
import time
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest

from celeriac.app import Celeriac
from celeriac.errors import ConfigError, UsageError
from celeriac.node.options import NodeOptions
from celeriac.node.worker import Worker
from job_factory import memory_app
from servers import RedisServer
from worker_program import TIMEOUT, Start, begun, until

WORKERS = 4
BACK_SECONDS = 15.0  # a killed worker's permits are promised to be free after this

LIMITED = """

def note(name, number, seconds):
    began = time.monotonic()
    time.sleep(seconds)
    with (HERE / name).open("a") as file:
        file.write(f"{number} {began} {time.monotonic()}\\n")

@app.task(name="proj.limited", concurrency_limit=3)
def limited(number):
    note("limited", number, 0.02)

@app.task(name="proj.keyed", concurrency_limit=1, per="args.tenant")
def keyed(tenant, number):
    note(f"keyed-{tenant}", number, 0.02)

@app.task(name="proj.alone", concurrency_limit=1)
def alone(name):
    return early.run(name)

@app.task(name="proj.again", bind=True, concurrency_limit=1, max_retries=3)
def again(self, number):
    note("again", f"{number}.{self.request.retries}", 0.02)
    if self.request.retries < 2:
        raise self.retry(countdown=0.01)

@app.task(name="proj.rated", rate_limit="20/s", rate_limit_scope="global", per="args.tenant")
def rated(tenant, number):
    note(f"rated-{tenant}", number, 0)
"""

RATE = 20.0  # a second
AT_ONCE = 2  # of them, in each tenth of a second

Run = tuple[str, float, float]  # what it was called with, when it began and when it ended


@pytest.fixture
def home(home: Path) -> Path:
    with (home / "proj.py").open("a") as file:
        file.write(LIMITED)
    return home


def runs(home: Path, name: str, count: int) -> list[Run]:
    """Return the runs that tasks have noted, once there are so many or more."""
    path = home / name
    until(lambda: path.exists() and path.read_text().count("\n") >= count, 2 * TIMEOUT)
    lines = [line.split() for line in path.read_text().splitlines()]
    return [(number, float(began), float(ended)) for number, began, ended in lines]


def most_at_once(runs: list[Run]) -> int:
    """Return how many ran at the same time, at most."""
    steps = sorted(chain.from_iterable(((began, 1), (ended, -1)) for _, began, ended in runs))
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    return most


BROKERS = [
    "sqlite",
    pytest.param("redis", marks=pytest.mark.redis),
    pytest.param("amqp", marks=pytest.mark.rabbitmq),  # counted at the result store
]


@pytest.mark.parametrize("servers", BROKERS, indirect=True)
def test_no_more_than_so_many_run_in_four_workers(home: Path, proj: ModuleType, start: Start) -> None:
    for _ in range(WORKERS):
        start(concurrency=2)

    for number in range(100):
        proj.limited.delay(number)
        proj.keyed.delay("acme", number)
        proj.keyed.delay(number % 2, number)

    limited, acme = runs(home, "limited", 100), runs(home, "keyed-acme", 100)
    even, odd = runs(home, "keyed-0", 50), runs(home, "keyed-1", 50)
    assert most_at_once(limited) <= 3
    assert [most_at_once(keyed) for keyed in (acme, even, odd)] == [1, 1, 1]
    assert sorted(int(number) for number, _, _ in limited) == list(range(100))
    assert sorted(int(number) for number, _, _ in acme) == list(range(100))
    assert len(even) == len(odd) == 50


@pytest.mark.parametrize("servers", BROKERS, indirect=True)
def test_no_more_than_so_many_begin_in_a_time_in_four_workers(
    home: Path, proj: ModuleType, start: Start
) -> None:
    for _ in range(WORKERS):
        start(concurrency=2)

    sent_at = time.monotonic()
    for number in range(60):
        proj.rated.delay("acme", number)
        proj.rated.delay("other", number)

    for tenant in ("acme", "other"):
        found = runs(home, f"rated-{tenant}", 60)
        assert sorted(int(number) for number, _, _ in found) == list(range(60))
        for place, began in enumerate(sorted(began for _, began, _ in found)):
            assert began - sent_at >= (place // AT_ONCE) * AT_ONCE / RATE


@pytest.mark.parametrize("servers", [pytest.param("redis", marks=pytest.mark.redis)], indirect=True)
def test_limited_tasks_go_on_when_the_server_that_counts_is_back(
    home: Path, proj: ModuleType, start: Start, redis_server: RedisServer
) -> None:
    workers = [start(concurrency=2) for _ in range(2)]
    for number in range(60):
        proj.keyed.delay("acme", number)
    runs(home, "keyed-acme", 5)

    redis_server.kill()
    for worker in workers:
        worker.wait_for("Connection to broker lost")
    redis_server.start()

    found = runs(home, "keyed-acme", 60)
    assert sorted(int(number) for number, _, _ in found) == list(range(60))


@pytest.mark.parametrize("servers", BROKERS[:2], indirect=True)
def test_the_permits_of_a_killed_worker_come_back(home: Path, proj: ModuleType, start: Start) -> None:
    holder = start()
    proj.alone.delay("held")
    begun(home, "held")
    start()
    waiting = proj.alone.delay("next")

    holder.signal(signal.SIGKILL)
    killed = time.monotonic()
    begun(home, "next")

    assert time.monotonic() - killed < BACK_SECONDS
    (home / "go").touch()
    assert waiting.get(timeout=TIMEOUT) == "next"


def test_what_waits_for_a_permit_keeps_nobody_waiting(home: Path, proj: ModuleType, start: Start) -> None:
    worker = start(concurrency=2)
    held = proj.alone.delay("held")
    begun(home, "held")
    waiting = [proj.alone.delay(f"w{number}") for number in range(30)]

    assert proj.add.delay(1, 2).get(timeout=TIMEOUT) == 3

    assert not any((home / f"w{number}-begun").exists() for number in range(30))
    (home / "go").touch()
    assert held.get(timeout=TIMEOUT) == "held"
    assert [result.get(timeout=TIMEOUT) for result in waiting] == [f"w{number}" for number in range(30)]
    assert all((home / f"w{number}-begun").read_text() == "x" for number in range(30))
    assert worker.stop() == 0


def test_what_waits_for_a_permit_is_handed_back_when_the_worker_stops(
    home: Path, proj: ModuleType, start: Start
) -> None:
    worker = start(concurrency=2)
    held = proj.alone.delay("held")
    begun(home, "held")
    waiting = proj.alone.delay("next")
    worker.wait_for(rf"Task proj\.alone\[{waiting.id}\] received")

    worker.signal(signal.SIGTERM)
    until(lambda: proj.app.transport.size("celery") == 1)
    (home / "go").touch()

    assert worker.finish() == 0
    assert held.get(timeout=TIMEOUT) == "held"
    start()
    assert waiting.get(timeout=TIMEOUT / 10) == "next"


def test_a_task_that_waits_to_be_tried_again_holds_no_permit(
    home: Path, proj: ModuleType, start: Start
) -> None:
    start(concurrency=2)

    for number in range(5):
        proj.again.delay(number)

    found = runs(home, "again", 15)
    assert most_at_once(found) == 1
    assert sorted(number for number, _, _ in found) == [
        f"{n}.{tries}" for n in range(5) for tries in range(3)
    ]


def test_a_revoked_task_waits_for_no_permit(home: Path, proj: ModuleType, start: Start) -> None:
    worker = start(concurrency=2)
    proj.alone.delay("held")
    begun(home, "held")
    unwanted, wanted = proj.alone.delay("unwanted"), proj.alone.delay("wanted")
    worker.wait_for(rf"Task proj\.alone\[{wanted.id}\] received")

    proj.app.control.revoke(unwanted.id)
    worker.wait_for(rf"Discarding revoked task: proj\.alone\[{unwanted.id}\]")
    (home / "go").touch()

    assert wanted.get(timeout=TIMEOUT) == "wanted"
    assert not (home / "unwanted-begun").exists()


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


@pytest.mark.parametrize("limit", [0, -1, 2.5, "5", True])
def test_a_limit_that_is_none_is_refused_where_it_is_written(app: Celeriac, limit: object) -> None:
    with pytest.raises(ConfigError, match="no whole number above 0"):
        app.task(concurrency_limit=limit)(len)


@pytest.mark.parametrize("rate", ["often", "10/d", "x/s", [1], "-1/s", -2, "nan", "inf/m"])
def test_a_rate_that_is_none_is_refused_where_it_is_written(app: Celeriac, rate: object) -> None:
    with pytest.raises(ConfigError, match=r"is no rate; .*'100/m'"):
        app.task(rate_limit=rate)(len)


def test_a_rate_that_is_none_in_the_settings_keeps_a_worker_from_starting() -> None:
    app = memory_app()
    app.task(name="shop.pay")(lambda: None)
    app.conf.task_annotations = {"shop.pay": {"rate_limit": "10/fortnight"}}

    with pytest.raises(ConfigError, match=r"Task shop.pay: rate_limit='10/fortnight' is no rate"):
        Worker(app, NodeOptions(hostname="w@here", pool="solo"))


def test_a_scope_that_there_is_not_is_refused_where_it_is_written(app: Celeriac) -> None:
    with pytest.raises(ConfigError, match="neither 'worker' nor 'global'"):
        app.task(rate_limit="1/s", rate_limit_scope="fleet")(len)


def test_a_key_without_a_limit_is_refused_where_it_is_written(app: Celeriac) -> None:
    with pytest.raises(ConfigError, match="there is neither a concurrency_limit"):
        app.task(per="args.obj")(len)


def test_a_call_whose_arguments_do_not_have_the_key_is_not_sent(app: Celeriac) -> None:
    @app.task(name="shop.pay", concurrency_limit=1, per="args.order.tenant")
    def pay(order: dict[str, int]) -> None: ...

    for send in (
        pay.delay,
        lambda order: app.send_task("shop.pay", (order,)),
        lambda order: pay.s(order).delay(),
    ):
        with pytest.raises(UsageError, match=r"shop\.pay was not sent: .*args\.order\.tenant"):
            send({"tenants": 1})

    assert app.transport.size("celery") == 0


def test_a_worker_that_cannot_count_says_what_to_set() -> None:
    app = Celeriac("shop", broker="amqp://", backend="rpc://", set_as_current=False)
    app.task(name="shop.pay", concurrency_limit=1)(lambda: None)

    with pytest.raises(ConfigError, match="Set task_limits_url: permits and locks are kept by redis://"):
        Worker(app, NodeOptions(hostname="w@here", pool="solo"))
