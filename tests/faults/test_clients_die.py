"""A client is killed (-9) while it publishes a chord: what it leaves harms nobody and goes by itself."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.testing.worker import start_worker
from redis_probe import command
from servers import RedisServer

TIMEOUT = 60.0
PARTS = 60
AT_ONCE = 20

CLIENT = """
import os, random, signal, sys, threading, time
from celeriac import Celeriac, chord, client

client.FLUSH_AT = AT_ONCE
where, number = sys.argv[1], float(sys.argv[2])
app = Celeriac("proj", broker=URL, backend=URL)

def die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # until the signal comes

def deadly(owner, method):
    real, calls = getattr(owner, method), []
    def call(self, *args, **kwargs):
        calls.append(method)
        if where == f"before {method}" and len(calls) == number:
            die()
        value = real(self, *args, **kwargs)
        if where == f"after {method}" and len(calls) == number:
            die()
        return value
    setattr(owner, method, call)

deadly(type(app.backend), "start_chord")
deadly(type(app.transport.producer()), "send")
part, body = app.signature("part"), app.signature("body", task_id="the body")
app.transport.size("celery")  # connected, so that the time is that of publishing
if where == "some time":
    threading.Timer(number, die).start()
chord([part.clone((n,)) for n in range(PARTS)])(body)
die()
"""


@pytest.fixture(params=["sqlite", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celeriac]:
    url = f"sqlite:///{tmp_path}/queue.db"
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        url = server.fresh_url()
    with Celeriac("proj", broker=url, backend=url) as app:
        yield app


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ("before start_chord", 1),
        ("after start_chord", 1),
        ("before send", 2),
        ("after send", 2),
        ("before send", PARTS // AT_ONCE),
        ("after send", PARTS // AT_ONCE),
        *(("some time", random.Random(seed).uniform(0.0, 0.05)) for seed in range(3)),
    ],
)
def test_the_body_runs_if_the_whole_header_was_sent_and_never_otherwise(
    app: Celeriac, where: str, number: float
) -> None:
    ran: Counter[str] = Counter()
    bodies = []

    @app.task(name="part")
    def part(n: int) -> int:
        ran[str(n)] += 1
        return n

    @app.task(name="body")
    def body(numbers: list[int]) -> int:
        bodies.append(numbers)
        return sum(numbers)

    @app.task(name="pause")
    def pause() -> None: ...

    assert killed(app.conf.broker_url, where, number)

    with start_worker(app):
        for _ in range(2):  # the first one runs behind all parts, the second one behind what they did
            pause.delay().get(timeout=TIMEOUT)
        if len(ran) == PARTS:
            app.AsyncResult("the body").get(timeout=TIMEOUT)

    assert set(ran.values()) <= {1}
    assert bodies == ([list(range(PARTS))] if len(ran) == PARTS else [])
    assert app.AsyncResult("the body").state == ("SUCCESS" if len(ran) == PARTS else "PENDING")
    assert kept_for_ever(app.conf.broker_url) == []


LOCKING = """
import os, signal, sys, time
from celeriac import Celeriac

app = Celeriac("proj", broker=URL, backend=URL)

@app.task(name="pay", unique="until_done")
def pay(order): ...

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # until the signal comes

producer = type(app.transport.producer())
locks = type(app.transport.locks())
setattr(*{"before send": (producer, "send", die), "before confirm": (locks, "confirm", die)}[sys.argv[1]])
pay.delay(7)
"""


@pytest.mark.parametrize("where", ["before send", "before confirm"])
def test_the_lock_of_a_call_that_was_never_sent_ends_within_seconds(app: Celeriac, where: str) -> None:
    pay = app.task(name="pay", unique="until_done")(lambda order: None)
    ended = subprocess.run(
        [sys.executable, "-c", LOCKING.replace("URL", repr(app.conf.broker_url)), where],
        timeout=TIMEOUT,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    sent = app.transport.size("celery")

    pay.delay(7)
    assert app.transport.size("celery") == sent == (0 if where == "before send" else 1)
    let_locks_age(app.conf.broker_url, 15.0)
    pay.delay(7)

    assert app.transport.size("celery") == sent + 1


def let_locks_age(url: str, seconds: float) -> None:
    """Have all locks end so many seconds earlier."""
    if url.startswith("redis"):
        for key in command(url, "KEYS", "celeriac.lock:*"):
            command(url, "PEXPIRE", key, int(command(url, "PTTL", key)) - round(1000 * seconds))
        return
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE locks SET since = since - ?, until = until - ?", (seconds, seconds))
    connection.close()


def killed(url: str, where: str, number: float) -> bool:
    """Run the client; return whether it was killed."""
    program = CLIENT.replace("URL", repr(url)).replace("AT_ONCE", str(AT_ONCE)).replace("PARTS", str(PARTS))
    ended = subprocess.run(
        [sys.executable, "-c", program, where, str(number)],
        env=dict(os.environ),
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    return ended.returncode == -signal.SIGKILL


def kept_for_ever(url: str) -> list[Any]:
    """Return what is left in a result store and does not expire."""
    if url.startswith("redis"):
        return [key for key in command(url, "KEYS", "celery-*") if command(url, "TTL", key) < 0]
    path = url.removeprefix("sqlite:///")
    tables = ("chords", "chord_parts", "groups", "results", "claims")
    with sqlite3.connect(path) as connection:
        found = [
            connection.execute(f"SELECT * FROM {table} WHERE expires IS NULL").fetchall() for table in tables
        ]
    connection.close()
    return [row for rows in found for row in rows]
