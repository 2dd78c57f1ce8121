"""What a class of transport tests overrides, and what it gets for that."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from celeriac.message import Ack, Delivery
from celeriac.ports import Consumer, ConsumeSpec, Producer, Transport
from celeriac.queues import Queue
from celeriac.testing.conformance.messages import PATIENCE_SECONDS, new_queue
from celeriac.transports import connect

Consume = Callable[..., AbstractAsyncContextManager[Consumer]]

DEADLINE_SECONDS = 10.0
QUIET_SECONDS = 0.25  # how long nothing has to arrive before we believe that nothing will


async def take(consumer: Consumer, count: int) -> list[Delivery]:
    """Return ``count`` deliveries, by as many calls as it needs."""
    taken: list[Delivery] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(taken) < count:
            taken.extend(await consumer.receive(count - len(taken)))
    return taken


async def nothing_arrives(consumer: Consumer) -> bool:
    """Return whether `receive` keeps waiting; what it took instead is in the assertion's text."""
    try:
        async with asyncio.timeout(QUIET_SECONDS):
            unexpected = await consumer.receive(10)
    except TimeoutError:
        return True
    raise AssertionError(f"received {unexpected!r}")


async def ack(consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
    """Settle all of them with Ack."""
    await consumer.settle([(delivery, Ack()) for delivery in deliveries])


class TransportFixtures:
    """The fixtures; override `broker_url` at least."""

    honours_expiration = True  # a message's `expiration` property counts at the broker
    honours_dead_letter_exchange = True  # the queue argument x-dead-letter-exchange counts

    @pytest.fixture
    def broker_url(self) -> str:
        """Return where the broker of the test is; override it."""
        raise NotImplementedError

    @pytest.fixture
    def transport_options(self) -> dict[str, Any]:  # Any: transport options
        """Return the transport options; override it where needed."""
        return {}

    @pytest.fixture
    def unreachable_url(self) -> str | None:
        """Return a URL, with the password ``sekrit`` where it can have one, where nobody answers."""
        return None

    @pytest.fixture
    def put_raw(self, transport: Transport) -> Callable[[Queue, bytes], None] | None:
        """Return a function that puts bytes into a queue past the transport; None where that cannot be."""
        return None

    @pytest.fixture
    def transport(self, broker_url: str, transport_options: Mapping[str, Any]) -> Iterator[Transport]:
        """Yield a transport, closed at the end."""
        transport = connect(broker_url, transport_options)
        yield transport
        transport.close()

    @pytest.fixture
    def producer(self, transport: Transport) -> Iterator[Producer]:
        """Yield a producer, closed at the end."""
        producer = transport.producer()
        yield producer
        producer.close()

    @pytest.fixture
    def queue(self) -> Queue:
        """Return a queue of the test's own."""
        return new_queue()

    @pytest.fixture
    def consume(self, transport: Transport) -> Consume:
        """Return a context manager that consumes: ``async with consume(queue, prefetch=…) as consumer``."""

        @contextlib.asynccontextmanager
        async def consuming(
            *queues: Queue, prefetch: int = 0, lease_seconds: float = 15.0, node: str = "one@conformance"
        ) -> AsyncIterator[Consumer]:
            consumer = await transport.consumer(
                ConsumeSpec(queues=queues, node=node, prefetch=prefetch, lease_seconds=lease_seconds)
            )
            try:
                yield consumer
            finally:
                await consumer.close()

        return consuming
