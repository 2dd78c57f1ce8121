"""Who listens to broadcasts and can hear none any more is told, even where nobody closes anything."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from celeriac.errors import TransportError
from celeriac.ports import Transport
from celeriac.queues import Queue
from celeriac.transports import connect, sqlite_fanout
from celeriac.transports.redis import fanout as redis_fanout
from celeriac.wire.control import Terms
from faults.proxy import Proxy
from servers import RedisServer

TIMEOUT = 60.0
COMMANDS: Queue = Terms().node_queue("w1")


async def assert_told(transport: Transport, deafen: Callable[[], None]) -> None:
    fanout = transport.fanout()
    try:
        subscription = await fanout.subscribe(COMMANDS)
        deafen()
        async with asyncio.timeout(TIMEOUT):
            with pytest.raises(TransportError):
                await subscription.next()
        async with asyncio.timeout(TIMEOUT):
            await (await fanout.subscribe(COMMANDS)).close()  # and can listen again
    finally:
        await fanout.aclose()
        fanout.close()


async def test_a_line_to_redis_that_has_died_in_silence(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_fanout, "_PULSE_SECONDS", 0.1)
    url = redis_server.fresh_url()
    with Proxy(redis_server.port) as proxy:
        through = url.replace(f":{redis_server.port}/", f":{proxy.port}/")
        with closing(connect(through, {"socket_timeout": 0.5})) as transport:
            await assert_told(transport, proxy.forget)


async def test_a_listener_of_sqlite_that_others_took_for_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_fanout, "_REFRESH_SECONDS", 0.1)
    file = tmp_path / "q.db"

    def forget_all() -> None:
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("DELETE FROM listeners")

    with closing(connect(f"sqlite:///{file}", {"poll_seconds": 0.05})) as transport:
        await assert_told(transport, forget_all)
