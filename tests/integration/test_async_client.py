"""Sending and awaiting from an event loop: nothing on the loop's thread waits for a disk or a socket."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.message import Outcome

HARMLESS = {"getpid", "getppid", "urandom", "fspath", "uname"}
OF_THE_LOOP = ("asyncio.", "selectors", "concurrent.futures.")
NEVER_WAITS = {"Alarm.ring"}  # its socket is set not to block
WAITS = {"posix", "_io", "_socket", "socket", "select", "sqlite3", "_sqlite3", "_ssl", "ssl", "_queue"}


@pytest.fixture(params=["sqlite", "redis", "rabbitmq", "rpc"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celeriac]:
    """An app that nobody has used yet."""
    match request.param:
        case "sqlite":
            broker, results = f"sqlite:///{tmp_path}/queue.db", "sqlite://"
        case "redis":
            broker = results = request.getfixturevalue("redis_url")
        case "rabbitmq":
            broker, results = request.getfixturevalue("rabbitmq_url"), f"file://{tmp_path}"
        case _:
            broker, results = request.getfixturevalue("rabbitmq_url"), "rpc://"
    with Celeriac("proj", broker=broker, backend=results) as app:
        yield app


class Watch:
    """Notes what a thread calls that may wait for a disk, a socket or another thread."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call" or str(frame.f_globals.get("__name__")).startswith(OF_THE_LOOP):
            return
        owner = getattr(called, "__self__", None)
        module = owner.__name__ if isinstance(owner, type(sys)) else type(owner).__module__
        if frame.f_code.co_qualname in NEVER_WAITS:
            return
        waits = (module in WAITS and called.__name__ not in HARMLESS) or called.__name__ == "sleep"
        if waits and not (module == "_queue" and called.__name__ == "put"):
            self.seen.append(f"{module}.{called.__qualname__} in {frame.f_code.co_qualname}")


@contextmanager
def watched() -> Iterator[Watch]:
    """Watch this thread."""
    watch, before = Watch(), sys.getprofile()
    gc.collect()
    gc.disable()  # or what earlier tests have left is closed in between
    sys.setprofile(watch)
    try:
        yield watch
    finally:
        sys.setprofile(before)
        gc.enable()


async def test_the_watch_sees_what_would_block(tmp_path: Path) -> None:
    app = Celeriac("proj", broker=f"sqlite:///{tmp_path}/queue.db")
    with app, watched() as watch:
        app.send_task("add", (1, 1))

    assert any("sqlite3." in seen for seen in watch.seen)


async def test_neither_the_first_call_nor_a_later_one_blocks_the_loop(app: Celeriac) -> None:
    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    await asyncio.to_thread(int)  # the loop imports its threads when it first has one

    with watched() as watch:
        first = await add.adelay(1, 1)
        others = await asyncio.gather(*(add.aapply_async((n, 1), countdown=60) for n in range(20)))
        results = [asyncio.ensure_future(awaited(one)) for one in (first, *others)]
        updates = asyncio.ensure_future(followed(first))
        await asyncio.to_thread(store, app, [first.id, *(one.id for one in others)])
        values = await asyncio.gather(*results)
        states = await updates

    assert watch.seen == []
    assert values == [f"of {one.id}" for one in (first, *others)]
    assert states[-1] == "SUCCESS"


async def awaited(result: Any) -> Any:
    return await result


async def followed(result: Any) -> list[str]:
    return [update.state async for update in result.updates()]


def store(app: Celeriac, ids: list[str]) -> None:
    """Store results, as a worker does."""
    backend = app.backend
    assert backend is not None
    outcomes = [Outcome(id=id, state="SUCCESS", result=f"of {id}") for id in ids]
    backend.store([backend.encode(outcome, reply_to=app.reply_address()) for outcome in outcomes])
