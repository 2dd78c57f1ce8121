"""Any sequence of calls leaves every message where it should be, on every transport."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest

from celeriac.clock import FakeClock
from celeriac.ports import Consumer, Transport
from celeriac.testing.conformance.machine import MachineTests
from celeriac.transports.amqp.consumer import AmqpConsumer
from celeriac.transports.redis.consumer import RedisConsumer
from celeriac.transports.sqlite_consumer import SqliteConsumer
from redis_probe import command


class TurnedByHand(MachineTests):
    """The clock is an argument of the transport."""

    clock = FakeClock()
    lease_seconds = 100.0

    @pytest.fixture
    def transport_options(self) -> dict[str, Any]:
        return {"clock": self.clock}

    def now(self) -> float:
        return self.clock.time()

    def pass_time(self, transport: Transport, seconds: float) -> None:
        self.clock.advance(seconds)


class TestMemoryMachine(TurnedByHand):
    examples = 60

    @pytest.fixture
    def broker_url(self) -> str:
        return f"memory://{uuid.uuid4().hex}"


class TestSqliteMachine(TurnedByHand):
    @pytest.fixture
    def broker_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/broker.db"

    async def kill(self, consumer: Consumer) -> None:
        assert isinstance(consumer, SqliteConsumer)
        consumer._stop_waiting()
        await consumer._lane.run(consumer._visitor._let_go)
        consumer._lane.close()


class TestRedisMachine(MachineTests):
    keeps_order = False  # what a node is about to catch is not in line for a moment
    sends_later = False  # such messages have the moment in their headers
    lease_seconds = 1000.0

    @pytest.fixture
    def broker_url(self, redis_url: str) -> str:
        self.url = redis_url
        return redis_url

    def pass_time(self, transport: Transport, seconds: float) -> None:
        """Make everything earlier that the server compares with its clock."""
        for key in command(self.url, "KEYS", "celeriac.*"):
            if key in (b"celeriac.nodes", b"celeriac.due") or key.startswith(b"celeriac.parked:"):
                for member in command(self.url, "ZRANGE", key, 0, -1):
                    if command(self.url, "ZSCORE", key, member) != b"0":  # else it is dead as it is
                        command(self.url, "ZINCRBY", key, -seconds, member)

    async def kill(self, consumer: Consumer) -> None:
        assert isinstance(consumer, RedisConsumer)
        consumer._fetcher.hang_up()
        await consumer._member.close()

    async def cut(self, consumer: Consumer) -> bool:
        assert isinstance(consumer, RedisConsumer)
        for number in consumer._member.client_ids:
            command(self.url, "CLIENT", "KILL", "ID", number)
        return True


class TestAmqpMachine(MachineTests):
    keeps_order = False  # RabbitMQ sends ahead
    examples = 12
    steps = 25

    @pytest.fixture
    def broker_url(self, rabbitmq_url: str) -> str:
        return rabbitmq_url

    async def kill(self, consumer: Consumer) -> None:
        await self.cut(consumer)

    async def cut(self, consumer: Consumer) -> bool:
        """Hang up, after RabbitMQ has read what was said."""
        assert isinstance(consumer, AmqpConsumer)
        stream = consumer._stream
        if stream is not None:
            sources = consumer._sources
            await consumer._call(sources.allowance.tell(len(sources.queues)))
            stream.abort(ConnectionResetError("the test hung up"))
            await asyncio.wait_for(asyncio.shield(stream._closed), 10)
        return True
