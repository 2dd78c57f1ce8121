"""A worker in a process of its own: signals, exit codes, and what is left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from celeriac.errors import TimeoutError as ResultTimeout
from celeriac.errors import WorkerLostError
from worker_program import TIMEOUT, Start, begun, runs, until


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_log_lines_and_results(proj: ModuleType, start: Start, pool: str) -> None:
    worker = start(pool)

    result = proj.add.delay(1, 2)

    assert result.get(timeout=TIMEOUT) == 3
    name = "ForkPoolWorker-1" if pool == "prefork" else "MainProcess"
    worker.wait_for(rf"INFO/MainProcess\] Task proj\.add\[{result.id}\] received")
    worker.wait_for(rf"INFO/{name}\] Task proj\.add\[{result.id}\] succeeded in [\d.e-]+s: 3")
    assert worker.stop() == 0


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_term_lets_the_running_task_end(home: Path, proj: ModuleType, start: Start, pool: str) -> None:
    worker = start(pool)
    result = proj.early.delay("one")
    begun(home, "one")

    for _ in range(3):
        worker.signal(signal.SIGTERM)
    worker.wait_for(r"worker: Warm shutdown \(MainProcess\)")
    (home / "go").touch()

    assert worker.finish() == 0
    assert result.get(timeout=TIMEOUT) == "one"


def test_what_had_not_begun_is_handed_back_at_once(home: Path, proj: ModuleType, start: Start) -> None:
    worker = start()
    results = [proj.early.delay(name) for name in ("one", "two", "three")]
    begun(home, "one")

    worker.signal(signal.SIGTERM)
    until(lambda: proj.app.transport.size("celery") == 2)
    (home / "go").touch()

    assert worker.finish() == 0
    assert results[0].get(timeout=TIMEOUT) == "one"
    start()
    assert [result.get(timeout=TIMEOUT) for result in results] == ["one", "two", "three"]
    assert [runs(home, name) for name in ("one", "two", "three")] == [1, 1, 1]


def test_an_interrupt_is_warm_and_fails(proj: ModuleType, start: Start) -> None:
    worker = start()

    worker.signal(signal.SIGINT)

    assert worker.finish() == 1
    output = worker.output
    assert (
        "worker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!" in output
    )
    assert "worker: Warm shutdown (MainProcess)" in output


def test_a_second_interrupt_is_cold(home: Path, proj: ModuleType, start: Start) -> None:
    worker = start()
    proj.late.delay("one")
    begun(home, "one")

    worker.signal(signal.SIGINT)
    worker.wait_for("Warm shutdown")
    worker.signal(signal.SIGINT)

    assert worker.finish() == 0  # as with Celery: the first one alone ends with 1
    assert "worker: Hitting Ctrl+C again will terminate all running tasks!" in worker.output
    assert "worker: Cold shutdown (MainProcess)" in worker.output
    assert not (home / "one-done").exists()


@pytest.mark.parametrize(
    ("number", "environment"),
    [(signal.SIGQUIT, {}), (signal.SIGTERM, {"REMAP_SIGTERM": "SIGQUIT"})],
    ids=["quit", "remapped"],
)
def test_a_cold_shutdown_gives_late_tasks_back(
    home: Path, proj: ModuleType, start: Start, number: int, environment: dict[str, str]
) -> None:
    worker = start(**environment)
    result = proj.late.delay("one")
    begun(home, "one")

    worker.signal(number)

    assert worker.finish() == 0
    assert "worker: Cold shutdown (MainProcess)" in worker.output
    assert "Warm" not in worker.output
    with pytest.raises(ResultTimeout):
        result.get(timeout=0.3)
    assert not (home / "one-done").exists()
    (home / "go").touch()
    start()
    assert result.get(timeout=TIMEOUT) == "one"


def test_a_cold_shutdown_does_not_hide_the_loss_of_early_tasks(
    home: Path, proj: ModuleType, start: Start
) -> None:
    worker = start()
    result = proj.early.delay("one")
    begun(home, "one")
    time.sleep(0.05)  # so that its start has been seen

    worker.signal(signal.SIGQUIT)

    assert worker.finish() == 0
    with pytest.raises(WorkerLostError):
        result.get(timeout=TIMEOUT)
    assert len(proj.app.transport.graveyard().find("celery")) == 1


def test_a_soft_shutdown_gives_running_tasks_time(home: Path, proj: ModuleType, start: Start) -> None:
    worker = start(soft=15)
    result = proj.late.delay("one")
    begun(home, "one")

    worker.signal(signal.SIGQUIT)
    worker.wait_for("Initiating Soft Shutdown, terminating in 15 seconds")
    (home / "go").touch()

    assert worker.finish() == 0
    assert result.get(timeout=TIMEOUT) == "one"
    assert "worker: Cold shutdown (MainProcess)" in worker.output


def test_a_soft_shutdown_can_be_hurried(home: Path, proj: ModuleType, start: Start) -> None:
    worker = start(soft=60)
    proj.late.delay("one")
    begun(home, "one")

    worker.signal(signal.SIGQUIT)
    worker.wait_for("Initiating Soft Shutdown")
    worker.signal(signal.SIGQUIT)

    assert worker.finish() == 0
    assert "Waiting gracefully for cold shutdown to complete..." in worker.output
    assert not (home / "one-done").exists()


def test_hangup_begins_anew_in_the_same_process(proj: ModuleType, start: Start) -> None:
    worker = start()
    before = psutil.Process(worker.pid).children(recursive=True)

    worker.signal(signal.SIGHUP)
    worker.wait_for("Restarting celery worker")
    worker.wait_for(r"w1@here ready\.", count=2)

    assert proj.add.delay(1, 2).get(timeout=TIMEOUT) == 3
    assert all(not child.is_running() for child in before)
    assert worker.stop() == 0


def test_usr1_shows_what_every_thread_does(start: Start) -> None:
    worker = start("threads")

    worker.signal(signal.SIGUSR1)

    worker.wait_for("Current thread|Thread 0x")
    assert worker.stop() == 0


@pytest.mark.parametrize("servers", ["sqlite", "redis", "amqp"], indirect=True)
def test_nothing_is_left_when_the_worker_is_killed(home: Path, proj: ModuleType, start: Start) -> None:
    worker = start(concurrency=2)
    late, early = proj.late.delay("late"), proj.early.delay("early")
    waiting = [proj.add.delay(i, 1) for i in range(3)]
    begun(home, "late")
    begun(home, "early")
    time.sleep(0.1)  # so that the broker knows that the early one has begun
    family = psutil.Process(worker.pid).children(recursive=True)

    os.kill(worker.pid, signal.SIGKILL)
    worker.finish()
    _, alive = psutil.wait_procs(family, timeout=5)
    (home / "go").touch()
    start()

    assert alive == []
    assert len(family) == 3
    assert [result.get(timeout=TIMEOUT) for result in waiting] == [1, 2, 3]
    assert late.get(timeout=TIMEOUT) == "late"
    if proj.app.transport.caps.leases:  # RabbitMQ has forgotten it: it was acknowledged when it began
        with pytest.raises(WorkerLostError):
            early.get(timeout=TIMEOUT)
    assert (runs(home, "late"), runs(home, "early")) == (2, 1)


def test_an_idle_worker_costs_next_to_nothing(start: Start) -> None:
    worker = start(concurrency=2)
    family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]

    def spent() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in family)

    before = spent()
    time.sleep(2)

    assert spent() - before < 0.2


@pytest.mark.parametrize("servers", ["sqlite", "redis", "amqp"], indirect=True)
def test_a_task_that_kills_whole_workers_is_kept_after_as_many_as_are_allowed(
    home: Path, proj: ModuleType, start: Start
) -> None:
    poison, innocent = proj.poison.delay(), proj.add.delay(1, 2)

    for _ in range(3):
        assert start("solo").finish() == -signal.SIGKILL
    last = start("solo")
    with pytest.raises(WorkerLostError):
        poison.get(timeout=TIMEOUT)

    assert innocent.get(timeout=TIMEOUT) == 3
    assert last.stop() == 0  # all is settled now
    assert (home / "poison").read_text() == "xxx"
    [letter] = proj.app.transport.graveyard().find("celery")
    assert (letter.kind, letter.envelope.headers["id"]) == ("poison", poison.id)
