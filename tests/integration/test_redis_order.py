"""First in, first out for one consumer, though messages come on two connections, one of them slow."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from celeriac.ports import Consumer, ConsumeSpec, Producer
from celeriac.queues import Queue
from celeriac.testing.conformance.fixtures import DEADLINE_SECONDS, ack, take
from celeriac.testing.conformance.messages import new_queue, texts, to_queue
from celeriac.transports.redis import RedisTransport
from faults.proxy import Proxy
from redis_probe import command
from servers import RedisServer

LATE_SECONDS = 0.05  # by which one connection is slower than the other
HANDED_OVER = b"BLMOVE"  # said on the connection on which the server hands over by itself
WAIT_ENDED = b"UNBLOCK"  # said on the other one


@pytest.fixture
def queue() -> Queue:
    return new_queue()


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    transport = RedisTransport(redis_url, {})
    producer = transport.producer()
    yield producer
    producer.close()
    transport.close()


@contextlib.asynccontextmanager
async def consuming(url: str, queue: Queue) -> AsyncIterator[Consumer]:
    transport = RedisTransport(url, {})
    consumer = await transport.consumer(ConsumeSpec(queues=(queue,), node="one@host"))
    yield consumer
    await consumer.close()
    transport.close()


def through(proxy: Proxy, redis_server: RedisServer, url: str) -> str:
    return url.replace(f":{redis_server.port}", f":{proxy.port}")


async def until_armed(url: str, count: int = 1) -> None:
    """Wait until the server waits for a message to hand over."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while b"blocked_clients:%d" % count not in await asyncio.to_thread(command, url, "INFO", "clients"):
            await asyncio.sleep(0.005)


async def send(producer: Producer, queue: Queue, *words: str) -> None:
    for text in words:
        await producer.asend([to_queue(queue, text)], deadline=DEADLINE_SECONDS)


async def test_what_is_handed_over_late_still_comes_before_what_is_fetched(
    redis_url: str, redis_server: RedisServer, proxy: Proxy, producer: Producer, queue: Queue
) -> None:
    proxy.slow(LATE_SECONDS, after=HANDED_OVER)
    async with consuming(through(proxy, redis_server, redis_url), queue) as consumer:
        got = asyncio.create_task(take(consumer, 2))
        await until_armed(redis_url)

        await send(producer, queue, "first", "second")
        await consumer.add_queue(new_queue())  # has it fetch

        deliveries = await got
        await ack(consumer, deliveries)
    assert texts(deliveries) == ["first", "second"]


async def test_what_was_fetched_before_the_server_began_to_wait_comes_first(
    redis_url: str, redis_server: RedisServer, proxy: Proxy, producer: Producer, queue: Queue
) -> None:
    """The word that ends the wait arrives before the wait does."""
    async with consuming(through(proxy, redis_server, redis_url), queue) as consumer:
        got = asyncio.create_task(take(consumer, 3))
        await until_armed(redis_url)
        proxy.slow(LATE_SECONDS, after=HANDED_OVER)
        await send(producer, queue, "first")
        while command(redis_url, "LLEN", queue.name):
            await asyncio.sleep(0.001)
        await asyncio.sleep(1.2 * LATE_SECONDS)  # it has come, and the next wait is on its way
        await send(producer, queue, "second")
        await consumer.add_queue(new_queue())  # has it fetch
        await send(producer, queue, "third")

        deliveries = await got
        await ack(consumer, deliveries)
    assert texts(deliveries) == ["first", "second", "third"]


async def test_what_goes_back_comes_before_what_was_sent_later(
    redis_url: str, redis_server: RedisServer, proxy: Proxy, producer: Producer, queue: Queue
) -> None:
    async with consuming(through(proxy, redis_server, redis_url), queue) as consumer:
        waiting = asyncio.create_task(consumer.receive(1))
        await until_armed(redis_url)
        proxy.slow(LATE_SECONDS, after=WAIT_ENDED)
        waiting.cancel()  # nobody waits, and the server does not know it yet
        await asyncio.gather(waiting, return_exceptions=True)
        await send(producer, queue, "first")
        await asyncio.sleep(LATE_SECONDS / 2)  # it has come, and is on its way back
        await send(producer, queue, "second")

        deliveries = await take(consumer, 2)
        await ack(consumer, deliveries)
    assert texts(deliveries) == ["first", "second"]


async def test_what_is_handed_over_before_its_time_is_not_forgotten_by_a_fetch_that_waited_for_it(
    redis_url: str, redis_server: RedisServer, proxy: Proxy, producer: Producer, queue: Queue
) -> None:
    proxy.slow(LATE_SECONDS, after=HANDED_OVER)
    async with consuming(through(proxy, redis_server, redis_url), queue) as consumer:
        got = asyncio.create_task(take(consumer, 1))
        await until_armed(redis_url)

        due = time.time() + 4 * LATE_SECONDS
        await producer.asend([to_queue(queue, "later", not_before=due)], deadline=DEADLINE_SECONDS)
        await consumer.add_queue(new_queue())  # has it fetch

        deliveries = await got
        late_seconds = time.time() - due
        await ack(consumer, deliveries)
    assert texts(deliveries) == ["later"]
    assert late_seconds >= 0
