"""Of calls that are the same one runs, with four workers and many who call; no lock outlives its call."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.connections import connect_locks
from celeriac.errors import ConfigError, TaskRevokedError, WorkerLostError
from celeriac.locks import HELD_SECONDS, Lock
from celeriac.node.options import NodeOptions
from celeriac.node.worker import Worker
from worker_program import TIMEOUT, Start, begun, until

WORKERS = 4
CALLERS = 4
CALLS = 30  # of each caller
KEYS = 3

UNIQUE = """

def note(name, self, seconds):
    began = time.monotonic()
    time.sleep(seconds)
    with (HERE / name).open("a") as file:
        file.write(f"{self.request.id} {began} {time.monotonic()}\\n")

@app.task(name="proj.done", bind=True, unique="until_done")
def done(self, key):
    note(f"done-{key}", self, 0.01)

@app.task(name="proj.started", bind=True, unique="until_started")
def started(self, key):
    note(f"started-{key}", self, 0.01)

@app.task(name="proj.throttled", bind=True, throttle=600, unique_on=["args.key"])
def throttled(self, key, number):
    note(f"throttled-{key}", self, 0)

@app.task(name="proj.debounced", bind=True, debounce=0.3, unique_on=["args.key"])
def debounced(self, key, number):
    note(f"debounced-{key}", self, 0)
    return number

@app.task(name="proj.alone", unique="until_done")
def alone(name):
    return early.run(name)

@app.task(name="proj.alone_late", unique="until_done", acks_late=True)
def alone_late(name):
    return early.run(name)

@app.task(name="proj.waits", unique="until_started")
def waits(name):
    return early.run(name)

@app.task(name="proj.again", bind=True, unique="until_done", max_retries=3)
def again(self, name):
    trace(f"{name}-begun")
    if self.request.retries < 2:
        raise self.retry(countdown=0.3 if self.request.retries else 0)
    return self.request.retries

@app.task(name="proj.fails", unique="until_done")
def fails():
    raise ValueError("no")
"""

Run = tuple[str, float, float]  # the id, when it began and when it ended

BROKERS = [
    "sqlite",
    pytest.param("redis", marks=pytest.mark.redis),
    pytest.param("amqp", marks=pytest.mark.rabbitmq),  # locked at the result store
]


@pytest.fixture
def home(home: Path) -> Path:
    with (home / "proj.py").open("a") as file:
        file.write(UNIQUE)
    return home


def runs(home: Path, name: str, count: int) -> list[Run]:
    """Return the runs that tasks have noted, once there are so many or more."""
    path = home / name
    until(lambda: path.exists() and path.read_text().count("\n") >= count)
    lines = [line.split() for line in path.read_text().splitlines()]
    return [(id_, float(began), float(ended)) for id_, began, ended in lines]


def most_at_once(runs: list[Run]) -> int:
    """Return how many ran at the same time, at most."""
    steps = sorted(chain.from_iterable(((began, 1), (ended, -1)) for _, began, ended in runs))
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    return most


def race(call: Any) -> list[tuple[int, str, float]]:
    """Have several callers call at once; return the key, the id and the time of each call."""
    gate = threading.Barrier(CALLERS)

    def caller(_: int) -> list[tuple[int, str, float]]:
        made = []
        gate.wait()
        for number in range(CALLS):
            at = time.monotonic()
            made.append((number % KEYS, call(number % KEYS, number).id, at))
        return made

    with ThreadPoolExecutor(CALLERS) as callers:
        return list(chain.from_iterable(callers.map(caller, range(CALLERS))))


@pytest.mark.parametrize("servers", BROKERS, indirect=True)
def test_each_call_that_is_sent_runs_once_while_four_workers_race(
    home: Path, proj: ModuleType, start: Start
) -> None:
    for _ in range(WORKERS):
        start(concurrency=2)

    made = {
        "done": race(lambda key, number: proj.done.delay(key)),
        "started": race(lambda key, number: proj.started.delay(key)),
        "throttled": race(proj.throttled.delay),
        "debounced": race(proj.debounced.delay),
    }
    last = [proj.debounced.delay(key, -1) for key in range(KEYS)]
    made["debounced"] += [(key, result.id, 0.0) for key, result in enumerate(last)]

    for name, calls in made.items():
        for key in range(KEYS):
            ids = {id_ for of, id_, _ in calls if of == key}
            found = runs(home, f"{name}-{key}", len(ids))
            assert Counter(id_ for id_, _, _ in found) == Counter(ids)
            began = {id_: at for id_, at, _ in found}
            if name == "done":
                assert most_at_once(found) == 1
            elif name == "started":  # what was changed before a call is seen by the run that it is left to
                assert all(began[id_] >= at for of, id_, at in calls if of == key)
            elif name == "throttled":
                assert len(ids) == 1
            else:  # a machine that is slow may have more bursts than one
                assert len(ids) < CALLERS * CALLS / KEYS
                assert last[key].get(timeout=TIMEOUT) == -1
    until(lambda: proj.app.transport.size("celery") == 0)  # the calls before the last are dropped
    dropped_or_run = len({id_ for _, id_, _ in made["debounced"]})
    assert sum(len(runs(home, f"debounced-{key}", 0)) for key in range(KEYS)) == dropped_or_run


@pytest.mark.parametrize("servers", BROKERS[:2], indirect=True)
def test_who_has_the_result_can_have_it_run_again(home: Path, proj: ModuleType, start: Start) -> None:
    start()
    (home / "go").touch()

    ids = []
    for _ in range(5):
        result = proj.alone.delay("x")
        assert result.get(timeout=TIMEOUT) == "x"
        ids.append(result.id)
    with pytest.raises(ValueError, match="no"):
        proj.fails.delay().get(timeout=TIMEOUT)
    with pytest.raises(ValueError, match="no"):
        proj.fails.delay().get(timeout=TIMEOUT)

    assert len(set(ids)) == 5


@pytest.mark.parametrize("servers", BROKERS[:1], indirect=True)
def test_a_retry_keeps_its_lock_until_it_is_done(home: Path, proj: ModuleType, start: Start) -> None:
    start(concurrency=2)
    first = proj.again.delay("again")

    until(lambda: (home / "again-begun").exists() and (home / "again-begun").read_text() == "xx")
    assert proj.again.delay("again").id == first.id
    assert first.get(timeout=TIMEOUT) == 2

    second = proj.again.delay("again")
    assert second.id != first.id
    assert second.get(timeout=TIMEOUT) == 2


@pytest.mark.parametrize("servers", BROKERS[1:2], indirect=True)
def test_a_call_is_left_to_the_first_until_that_starts(home: Path, proj: ModuleType, start: Start) -> None:
    first = proj.waits.delay("first")
    assert proj.waits.delay("first").id == first.id

    worker = start(worker_prefetch_multiplier=4)
    begun(home, "first")
    second = proj.waits.delay("first")
    assert second.id != first.id
    worker.wait_for(rf"Task proj\.waits\[{second.id}\] received")  # and waits for the only slot
    assert proj.waits.delay("first").id == second.id
    (home / "go").touch()

    assert [result.get(timeout=TIMEOUT) for result in (first, second)] == ["first", "first"]
    assert (home / "first-begun").read_text() == "xx"


@pytest.mark.parametrize("servers", BROKERS[:2], indirect=True)
def test_the_lock_of_a_killed_worker_ends_with_its_task(home: Path, proj: ModuleType, start: Start) -> None:
    holder = start()
    first = proj.alone.delay("first")
    begun(home, "first")
    start()

    holder.signal(signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        first.get(timeout=TIMEOUT)
    second = proj.alone.delay("first")
    (home / "go").touch()

    assert second.id != first.id
    assert second.get(timeout=TIMEOUT) == "first"


@pytest.mark.parametrize("servers", BROKERS[2:], indirect=True)
def test_what_may_not_begin_again_is_locked_only_as_long_as_its_worker_is_heard_of(
    home: Path, proj: ModuleType, start: Start
) -> None:
    worker = start()
    first = proj.alone.delay("first")
    begun(home, "first")

    until(lambda: 0 < seconds_left(proj, first.id) <= HELD_SECONDS)  # or it would stay for an hour
    (home / "go").touch()
    assert first.get(timeout=TIMEOUT) == "first"
    assert worker.stop() == 0


def seconds_left(proj: ModuleType, task_id: str) -> float:
    """Return how long a lock lasts if nobody keeps it; 0 when there is none."""
    app, name = proj.app, 'proj.alone[{"name":"first"}]'
    locks: Any = connect_locks(app.conf, app.transport, app_name=app.main)
    if hasattr(locks, "_links"):
        key = locks._key(Lock(name, task_id, 0))
        left: int = app.transport._call(b"*2\r\n$4\r\nPTTL\r\n$%d\r\n%s\r\n" % (len(key), key), 1, "x")[0]
        return left / 1000
    rows = locks._handle.read(
        lambda c: c.execute("SELECT until FROM locks WHERE holder = ?", (task_id,)).fetchall()
    )
    locks.close()
    return rows[0][0] - time.monotonic() if rows else 0.0


@pytest.mark.parametrize("servers", BROKERS[1:], indirect=True)
def test_the_lock_of_what_runs_again_stays_with_its_message(
    home: Path, proj: ModuleType, start: Start
) -> None:
    holder = start()
    first = proj.alone_late.delay("first")
    begun(home, "first")

    holder.signal(signal.SIGKILL)
    start()
    until(lambda: (home / "first-begun").read_text() == "xx")
    assert proj.alone_late.delay("first").id == first.id
    (home / "go").touch()

    assert first.get(timeout=TIMEOUT) == "first"
    assert proj.alone_late.delay("first").id != first.id


@pytest.mark.parametrize("servers", BROKERS[::2], indirect=True)
def test_what_is_never_run_keeps_nobody_out(home: Path, proj: ModuleType, start: Start) -> None:
    worker = start(worker_prefetch_multiplier=4)
    proj.early.delay("held")
    begun(home, "held")
    revoked, waits = proj.alone.delay("revoked"), proj.waits.delay("revoked")
    expired = proj.alone.apply_async(("expired",), expires=0.001)
    assert proj.alone.delay("revoked").id == revoked.id
    worker.wait_for(rf"Task proj\.waits\[{waits.id}\] received")

    proj.app.control.revoke([revoked.id, waits.id])
    worker.wait_for(rf"Discarding revoked task: proj\.waits\[{waits.id}\]")
    (home / "go").touch()

    for result in (revoked, waits):
        with pytest.raises(TaskRevokedError):
            result.get(timeout=TIMEOUT)
    # Results of what is revoked are there before a worker has met the message; brokers drop what has expired.
    until(lambda: proj.alone.delay("revoked").id != revoked.id)
    until(lambda: proj.waits.delay("revoked").id != waits.id)
    until(lambda: proj.alone.delay("expired").id != expired.id)


def test_a_worker_that_cannot_lock_says_what_to_set() -> None:
    app = Celeriac("shop", broker="amqp://", backend="rpc://", set_as_current=False)
    app.task(name="shop.pay", unique="until_done")(lambda: None)

    with pytest.raises(ConfigError, match="Set task_limits_url: permits and locks are kept by redis://"):
        Worker(app, NodeOptions(hostname="w@here", pool="solo"))
