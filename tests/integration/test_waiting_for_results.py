"""Many who wait for results cost one connection, and those who never wait cost nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.message import Outcome
from processes import run
from redis_probe import command
from worker_program import until

PATIENCE_SECONDS = 30.0
WAITING_THREAD = "celeriac-results"


@pytest.fixture
def redis_app(redis_url: str) -> Iterator[Celeriac]:
    app = Celeriac("proj", broker=redis_url, backend=redis_url)
    yield app
    app.close()


@pytest.fixture
def sqlite_app(tmp_path: Path) -> Iterator[Celeriac]:
    app = Celeriac("proj", broker=f"sqlite:///{tmp_path}/queue.db", backend="sqlite://")
    yield app
    app.close()


@pytest.fixture(params=["redis_app", "sqlite_app"])
def app(request: pytest.FixtureRequest) -> Celeriac:
    chosen: Celeriac = request.getfixturevalue(request.param)
    return chosen


def store(app: Celeriac, *ids: str) -> None:
    """Store results by a backend of another app, as a worker does."""
    worker = Celeriac("proj", broker=app.conf.broker_url, backend=app.conf.result_backend)
    backend = worker.backend
    assert backend is not None
    backend.store([backend.encode(Outcome(id=id, state="SUCCESS", result=f"of {id}")) for id in ids])
    worker.close()


def subscriptions(url: str) -> list[int]:
    """Return to how many channels each connection of our database listens that listens at all."""
    database = f"db={url.rpartition('/')[2]}"
    clients = [line.split() for line in command(url, "CLIENT", "LIST").decode().splitlines()]
    subs = [int(word[4:]) for words in clients if database in words for word in words if word[:4] == "sub="]
    return [count for count in subs if count]


def waiting_threads() -> int:
    return sum(thread.name == WAITING_THREAD for thread in threading.enumerate())


def test_fifty_threads_wait_on_one_connection(redis_app: Celeriac, redis_url: str) -> None:
    ids = [f"threads-{number}" for number in range(50)]

    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(redis_app.AsyncResult(id).get, timeout=PATIENCE_SECONDS) for id in ids]
        until(lambda: subscriptions(redis_url) == [50])
        store(redis_app, *ids[:25])
        assert [future.result() for future in waiting[:25]] == [f"of {id}" for id in ids[:25]]
        store(redis_app, *ids[25:])

        assert [future.result() for future in waiting[25:]] == [f"of {id}" for id in ids[25:]]
    until(lambda: sum(subscriptions(redis_url)) == 0)


def test_who_gives_up_leaves_the_others_waiting(app: Celeriac) -> None:
    with ThreadPoolExecutor(8) as pool:
        patient = [pool.submit(app.AsyncResult(f"p{n}").get, timeout=PATIENCE_SECONDS) for n in range(4)]
        hasty = [pool.submit(app.AsyncResult(f"h{n}").get, timeout=0.05) for n in range(4)]
        for future in hasty:
            assert isinstance(future.exception(), app.AsyncResult("x").TimeoutError)

        store(app, *(f"p{n}" for n in range(4)))

        assert [future.result() for future in patient] == [f"of p{n}" for n in range(4)]


async def test_five_thousand_wait_in_one_loop_on_one_connection(redis_app: Celeriac, redis_url: str) -> None:
    ids = [f"many-{number}" for number in range(5000)]
    threads = threading.active_count()
    touched: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            touched[frame.f_globals.get("__name__", "?")] += 1

    sys.setprofile(profile)
    try:
        waiting = [asyncio.ensure_future(_result(redis_app, id)) for id in ids]
        await asyncio.sleep(0)
        await asyncio.to_thread(until, lambda: subscriptions(redis_url) == [5000])
        running = waiting_threads()
        await asyncio.to_thread(store, redis_app, *ids)
        values = await asyncio.gather(*waiting)
    finally:
        sys.setprofile(None)

    assert values == [f"of {id}" for id in ids]
    assert running == 1
    # The loop does nothing that could take long: it hands over, and is handed.
    of_drivers = [name for name in touched if name.startswith(("celeriac.net", "celeriac.backends.redis"))]
    assert {name: touched[name] for name in of_drivers if touched[name] > 20} == {}
    assert sum(count for name, count in touched.items() if name.startswith("celeriac")) < 5000 * 20
    await asyncio.to_thread(until, lambda: waiting_threads() == 0)
    assert threading.active_count() <= threads + 2  # those of `to_thread`


async def test_five_thousand_wait_with_one_thread_and_one_bell(sqlite_app: Celeriac) -> None:
    ids = [f"many-{number}" for number in range(5000)]
    store(sqlite_app, "warm")
    assert await sqlite_app.AsyncResult("warm") == "of warm"
    await asyncio.to_thread(until, lambda: waiting_threads() == 0)
    descriptors = len(os.listdir("/proc/self/fd"))

    waiting = [asyncio.ensure_future(_result(sqlite_app, id)) for id in ids]
    await asyncio.to_thread(until, lambda: waiting_threads() == 1)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 4
    await asyncio.to_thread(store, sqlite_app, *ids)

    assert await asyncio.gather(*waiting) == [f"of {id}" for id in ids]
    await asyncio.to_thread(until, lambda: waiting_threads() == 0)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1


async def test_who_is_cancelled_leaves_nothing_behind(app: Celeriac) -> None:
    waiting = [asyncio.ensure_future(_result(app, f"c{number}")) for number in range(300)]
    stays = asyncio.ensure_future(_result(app, "stays"))
    await asyncio.to_thread(until, lambda: waiting_threads() == 1)

    for task in waiting:
        task.cancel()
    done = await asyncio.gather(*waiting, return_exceptions=True)

    assert all(isinstance(one, asyncio.CancelledError) for one in done)
    store(app, "stays")
    assert await stays == "of stays"
    await asyncio.to_thread(until, lambda: waiting_threads() == 0)
    if app.conf.result_backend.startswith("redis"):
        await asyncio.to_thread(until, lambda: sum(subscriptions(app.conf.result_backend)) == 0)


async def test_the_last_one_cancelled_ends_the_thread(app: Celeriac) -> None:
    task = asyncio.ensure_future(_result(app, "nobody"))
    await asyncio.to_thread(until, lambda: waiting_threads() == 1)

    task.cancel()

    await asyncio.to_thread(until, lambda: waiting_threads() == 0)
    if app.conf.result_backend.startswith("redis"):
        assert sum(subscriptions(app.conf.result_backend)) <= 1  # left along with the next command


async def test_loops_and_threads_wait_for_the_same_result(app: Celeriac) -> None:
    with ThreadPoolExecutor(2) as pool:
        threads = [pool.submit(app.AsyncResult("same").get, timeout=PATIENCE_SECONDS) for _ in range(2)]
        tasks = [asyncio.ensure_future(_result(app, "same")) for _ in range(2)]
        await asyncio.to_thread(until, lambda: waiting_threads() == 1)

        await asyncio.to_thread(store, app, "same")

        assert await asyncio.gather(*tasks) == ["of same"] * 2
        assert [await asyncio.to_thread(future.result) for future in threads] == ["of same"] * 2


def test_tasks_that_nobody_waits_for_leave_nothing_behind(redis_app: Celeriac, redis_url: str) -> None:
    @redis_app.task
    def forget() -> None: ...

    def send(times: int) -> int:
        for _ in range(times):
            forget.delay()
        gc.collect()
        return len(gc.get_objects())

    send(500)
    objects = send(500)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))

    after = send(50_000)

    assert after - objects < 200
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, descriptors)
    assert subscriptions(redis_url) == []


FORKS = """
import os, threading, time
from celeriac import Celeriac
from celeriac.message import Outcome

app = Celeriac("proj", broker={broker!r}, backend={backend!r})

def store(id):
    app.backend.store([app.backend.encode(Outcome(id=id, state="SUCCESS", result=id))])

got = []
store("warm")
threads = [threading.Thread(target=lambda n=n: got.append(app.AsyncResult(f"p{{n}}").get(timeout=30)))
           for n in range(4)]
for thread in threads:
    thread.start()
while len(app.backend._waiter._room._waits) < 4:
    time.sleep(0.01)
child = os.fork()
if child == 0:
    threading.Timer(0.2, store, ("c",)).start()
    value = app.AsyncResult("c").get(timeout=20)
    store("p0")
    os._exit(0 if value == "c" else 1)
status = os.waitpid(child, 0)[1]
for n in range(1, 4):
    store(f"p{{n}}")
for thread in threads:
    thread.join()
print(status, sorted(got))
"""


def test_a_forked_child_waits_by_itself(app: Celeriac, tmp_path: Path) -> None:
    program = FORKS.format(broker=app.conf.broker_url, backend=app.conf.result_backend)

    ended = run([sys.executable, "-c", program], cwd=tmp_path, env=dict(os.environ))

    assert "0 ['p0', 'p1', 'p2', 'p3']" in str(ended)


async def _result(app: Celeriac, id: str) -> Any:
    return await app.AsyncResult(id)


HALF_LOADED = """
import asyncio, importlib.machinery, sys, threading, time
from celeriac import Celeriac
from celeriac.message import Outcome

inside = threading.Event()

class SlowFinder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target) if name == "celeriac.awaiting" else None
        if spec is not None:
            load = spec.loader.exec_module
            def slowly(module):
                inside.set()
                time.sleep(0.3)  # a disk that takes its time
                load(module)
            spec.loader.exec_module = slowly
        return spec

sys.meta_path.insert(0, SlowFinder)
app = Celeriac("proj", broker="memory://", backend="memory://")
app.backend.store([app.backend.encode(Outcome(id="same", state="SUCCESS", result="done"))])

async def wait():
    return await app.AsyncResult("same")

async def main():
    first = asyncio.ensure_future(wait())
    while not inside.is_set():
        await asyncio.sleep(0.001)
    return [await wait(), await first]

print(asyncio.run(main()))
"""


def test_who_awaits_while_another_one_still_loads_what_that_takes_waits_for_it(tmp_path: Path) -> None:
    assert (
        run([sys.executable, "-c", HALF_LOADED], cwd=tmp_path, env=dict(os.environ)) == "['done', 'done']\n"
    )
