"""How a worker ends: on every broker, with every pool."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from types import ModuleType

import pytest

from celeriac.errors import WorkerLostError
from servers import Server
from worker_program import TIMEOUT, Start, begun, runs, until

everywhere = pytest.mark.parametrize("servers", ["sqlite", "redis", "amqp"], indirect=True)
every_pool = pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
every_one_once = pytest.mark.parametrize(
    ("servers", "pool"),
    [("sqlite", "prefork"), ("redis", "threads"), ("amqp", "solo"), ("redis", "prefork")],
    indirect=["servers"],
)

GIVEN_BACK_SECONDS = 1.0
BOUND_SECONDS = 15.0  # for an end that waits for nothing: on a busy machine


@everywhere
@every_pool
def test_term_gives_back_at_once_what_has_not_begun_and_waits_for_what_has(
    home: Path, proj: ModuleType, start: Start, pool: str
) -> None:
    worker = start(pool, worker_prefetch_multiplier=4)
    results = [proj.early.delay(name) for name in ("one", "two", "three")]
    begun(home, "one")
    worker.wait_for(r"\] received", count=3)  # what is still at the broker could not be given back

    worker.signal(signal.SIGTERM)
    until(lambda: proj.app.transport.size("celery") == 2, GIVEN_BACK_SECONDS)
    other = start(pool)
    begun(home, "two")
    (home / "go").touch()

    assert worker.finish() == 0
    assert [result.get(timeout=TIMEOUT) for result in results] == ["one", "two", "three"]
    assert [runs(home, name) for name in ("one", "two", "three")] == [1, 1, 1]
    assert re.search(r"WARNING/MainProcess\] Restoring 2 unacknowledged message\(s\)", worker.output)
    assert other.stop() == 0
    assert proj.app.transport.graveyard().find("celery") == []


@everywhere
@every_pool
def test_quit_gives_everything_back_that_is_acknowledged_late(
    home: Path, proj: ModuleType, start: Start, pool: str
) -> None:
    worker = start(pool, worker_prefetch_multiplier=4)
    results = [proj.late.delay(name) for name in ("one", "two")]
    begun(home, "one")

    worker.signal(signal.SIGQUIT)

    assert worker.finish(BOUND_SECONDS) == 0
    assert "worker: Cold shutdown (MainProcess)" in worker.output
    assert "Restoring 2 unacknowledged message(s)" in worker.output
    assert proj.app.transport.size("celery") == 2
    (home / "go").touch()
    other = start(pool)
    assert [result.get(timeout=TIMEOUT) for result in results] == ["one", "two"]
    assert [runs(home, name) for name in ("one", "two")] == [2, 1]
    assert other.stop() == 0


@every_one_once
def test_quit_tells_that_what_was_acknowledged_early_is_lost(
    home: Path, proj: ModuleType, start: Start, pool: str
) -> None:
    worker = start(pool)
    result = proj.early.delay("one")
    begun(home, "one")

    worker.signal(signal.SIGQUIT)

    assert worker.finish(BOUND_SECONDS) == 0
    with pytest.raises(WorkerLostError):
        result.get(timeout=TIMEOUT)
    assert len(proj.app.transport.graveyard().find("celery")) == 1


@every_one_once
@pytest.mark.parametrize(
    ("number", "environment"),
    [(signal.SIGQUIT, {}), (signal.SIGTERM, {"REMAP_SIGTERM": "SIGQUIT"})],
    ids=["quit", "remapped"],
)
def test_a_soft_shutdown_ends_with_the_short_task_done_and_the_long_one_given_back(
    home: Path, proj: ModuleType, start: Start, pool: str, number: int, environment: dict[str, str]
) -> None:
    worker = start(pool, soft=1.5, concurrency=2, **environment)
    short, long = proj.nap.delay(0.3), proj.late.delay("long")
    if pool == "solo":
        assert short.get(timeout=TIMEOUT) == 0.3
    begun(home, "long")

    worker.signal(number)

    assert worker.finish(BOUND_SECONDS) == 0
    lines = worker.output
    soft = lines.index("Initiating Soft Shutdown, terminating in 1.5 seconds")
    assert soft < lines.index("worker: Cold shutdown (MainProcess)")
    assert "Restoring 1 unacknowledged message(s)" in lines
    assert "Warm" not in lines
    assert short.get(timeout=TIMEOUT) == 0.3
    (home / "go").touch()
    start(pool)
    assert long.get(timeout=TIMEOUT) == "long"
    assert runs(home, "long") == 2


@pytest.mark.parametrize("idle", [False, True])
def test_an_idle_worker_ends_softly_only_when_it_is_told_to(start: Start, idle: bool) -> None:
    worker = start(soft=0.5, worker_enable_soft_shutdown_on_idle=idle)

    worker.signal(signal.SIGQUIT)

    assert worker.finish(BOUND_SECONDS) == 0
    assert ("Initiating Soft Shutdown, terminating in 0.5 seconds" in worker.output) == idle


def test_a_task_that_is_not_due_is_there_after_a_soft_shutdown(proj: ModuleType, start: Start) -> None:
    worker = start(soft=0.3, worker_enable_soft_shutdown_on_idle=True)
    result = proj.add.apply_async((1, 2), countdown=2)
    worker.wait_for("received")

    worker.signal(signal.SIGQUIT)

    assert worker.finish(BOUND_SECONDS) == 0
    start()
    assert result.get(timeout=TIMEOUT) == 3


@every_pool
def test_two_quits_after_a_term_end_a_worker_at_once(
    home: Path, proj: ModuleType, start: Start, pool: str
) -> None:
    worker = start(pool)
    proj.late.delay("one")
    begun(home, "one")

    worker.signal(signal.SIGTERM)
    worker.wait_for(r"worker: Warm shutdown \(MainProcess\)")
    worker.signal(signal.SIGQUIT)
    worker.signal(signal.SIGQUIT)

    assert worker.finish(BOUND_SECONDS) == 0
    assert "worker: Cold shutdown (MainProcess)" in worker.output


def test_the_fourth_interrupt_waits_for_nothing(home: Path, proj: ModuleType, start: Start) -> None:
    worker = start(soft=600)
    proj.late.delay("one")
    begun(home, "one")

    for expected in (r"Warm shutdown", r"Initiating Soft Shutdown"):
        worker.signal(signal.SIGINT)
        worker.wait_for(expected)
    worker.signal(signal.SIGINT)
    worker.wait_for("Waiting gracefully for cold shutdown to complete")
    worker.signal(signal.SIGINT)

    assert worker.finish(BOUND_SECONDS) in {0, 1}  # 1 when it came before the end


@every_one_once
def test_a_warm_shutdown_takes_no_longer_than_it_may(
    home: Path, proj: ModuleType, start: Start, pool: str
) -> None:
    worker = start(pool, soft=600, worker_shutdown_timeout=0.5)
    result = proj.late.delay("one")
    begun(home, "one")

    worker.signal(signal.SIGTERM)

    assert worker.finish(BOUND_SECONDS) == 0
    assert "Soft" not in worker.output
    assert re.search(r"within the 0\.5 seconds of worker_shutdown_timeout: 1 tasks? that", worker.output)
    (home / "go").touch()
    start(pool)
    assert result.get(timeout=TIMEOUT) == "one"
    assert runs(home, "one") == 2


@pytest.mark.parametrize(
    ("servers", "name", "how", "pool"),
    [
        ("redis", "redis_server", "kill", "prefork"),
        ("redis", "redis_server", "freeze", "threads"),
        ("redis", "redis_server", "freeze", "solo"),
        ("amqp", "rabbitmq_server", "kill", "threads"),
        ("amqp", "rabbitmq_server", "freeze", "prefork"),
    ],
    indirect=["servers"],
)
def test_a_worker_ends_in_time_although_its_broker_does_not_answer(
    request: pytest.FixtureRequest,
    home: Path,
    proj: ModuleType,
    start: Start,
    pool: str,
    name: str,
    how: str,
) -> None:
    server: Server = request.getfixturevalue(name)
    worker = start(pool, worker_shutdown_timeout=1)
    proj.late.delay("one")
    begun(home, "one")
    proj.app.close()

    getattr(server, how)()
    try:
        worker.signal(signal.SIGTERM)
        (home / "go").touch()
        began = time.monotonic()
        assert worker.finish(2 * BOUND_SECONDS) == 0
        assert time.monotonic() - began < BOUND_SECONDS
    finally:
        server.thaw()
        server.start()


@pytest.mark.parametrize("servers", ["redis"], indirect=True)
def test_an_outcome_that_nobody_takes_is_told_and_does_not_keep_the_worker(
    request: pytest.FixtureRequest, home: Path, proj: ModuleType, start: Start
) -> None:
    server: Server = request.getfixturevalue("redis_server")
    (home / "run_worker.py").write_text(
        "import celeriac.node.shutdown as shutdown\nshutdown._WRITE_DOWN_SECONDS = 0.5\n"
        + (home / "run_worker.py").read_text()
    )
    worker = start("threads")
    result = proj.late.delay("one")
    begun(home, "one")

    server.freeze()
    try:
        worker.signal(signal.SIGTERM)
        (home / "go").touch()
        assert worker.finish(2 * BOUND_SECONDS) == 0
    finally:
        server.thaw()

    assert re.search(rf"did not take what became of 1 messages .*{result.id}", worker.output)
