"""Connections to Redis that somebody gives up while they are opened."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from celeriac.net.redis_link import ConnectionLost
from celeriac.net.redis_servers import servers
from celeriac.net.redis_stream import Streams
from servers import RedisServer
from servers.ports import LOOPBACK


class Door:
    """Lets one caller through to Redis, but only when it is opened."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.knocked = asyncio.Event()
        self.opened = asyncio.Event()
        self.left = asyncio.Event()  # the caller hung up

    async def admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.knocked.set()
        await self.opened.wait()
        there_reader, there_writer = await asyncio.open_connection(LOOPBACK, self.port)
        answers = asyncio.create_task(_pass_on(there_reader, writer))
        await _pass_on(reader, there_writer)
        self.left.set()
        there_writer.close()
        await answers
        writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


@pytest.fixture
async def door(redis_server: RedisServer) -> AsyncIterator[tuple[Door, Streams]]:
    door = Door(redis_server.port)
    async with await asyncio.start_server(door.admit, LOOPBACK, 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        yield door, Streams(servers(f"redis://{LOOPBACK}:{port}/0", {}))


async def _cancel(streams: Streams, getting: asyncio.Task[object]) -> type[BaseException]:
    getting.cancel()
    await asyncio.sleep(0)
    return asyncio.CancelledError


async def _close(streams: Streams, getting: asyncio.Task[object]) -> type[BaseException]:
    streams.close()
    return ConnectionLost


@pytest.mark.parametrize("give_up", [_cancel, _close])
async def test_a_connection_that_is_given_up_while_it_opens_is_closed(
    door: tuple[Door, Streams],
    give_up: Callable[[Streams, asyncio.Task[object]], Awaitable[type[BaseException]]],
) -> None:
    (door_, streams) = door
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        getting: asyncio.Task[object] = asyncio.create_task(streams.get())
        await door_.knocked.wait()

        expected = await give_up(streams, getting)
        door_.opened.set()

        with pytest.raises(expected):
            await getting
        async with asyncio.timeout(10):
            await door_.left.wait()
        assert [str(warning.message) for warning in warned] == []
