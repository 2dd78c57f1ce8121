"""The Redis transport keeps every obligation, however it is configured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from celeriac.queues import Queue
from celeriac.testing.conformance.transports import TransportConformance
from redis_probe import command
from servers import RedisServer, free_port


class TestRedis(TransportConformance):
    honours_expiration = False
    honours_dead_letter_exchange = False

    @pytest.fixture
    def broker_url(self, redis_url: str) -> str:
        return redis_url

    @pytest.fixture
    def unreachable_url(self) -> str:
        return f"redis://user:sekrit@127.0.0.1:{free_port()}/0"

    @pytest.fixture
    def put_raw(self, broker_url: str, transport_options: dict[str, Any]) -> Callable[[Queue, bytes], None]:
        prefix = transport_options.get("global_keyprefix", "")
        return lambda queue, data: command(broker_url, "LPUSH", prefix + queue.name, data)


class TestRedisWithOptions(TestRedis):
    """Over a Unix socket, with a key prefix, other steps and another separator."""

    @pytest.fixture
    def broker_url(self, redis_server: RedisServer) -> str:
        database = redis_server.fresh_url().rpartition("/")[2]
        return f"redis+socket://{redis_server.socket_path}?virtual_host={database}"

    @pytest.fixture
    def transport_options(self) -> dict[str, Any]:
        return {
            "global_keyprefix": "{shop}:",
            "sep": ":",
            "priority_steps": list(range(10)),
            "fanout_prefix": "news.",
            "visibility_timeout": 3600,
        }
