"""The Redis backend keeps every obligation, however it is configured."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.backends import BackendSpec
from celeriac.codecs import Codecs
from celeriac.testing.conformance.backends import BackendConformance
from servers import RedisServer, free_port


class TestRedis(BackendConformance):
    @pytest.fixture
    def backend_url(self, redis_url: str) -> str:
        return redis_url

    @pytest.fixture
    def unreachable_url(self) -> str:
        return f"redis://user:sekrit@127.0.0.1:{free_port()}/0"


class TestRedisWithOptions(TestRedis):
    """Over a Unix socket and with a key prefix."""

    @pytest.fixture
    def backend_url(self, redis_server: RedisServer) -> str:
        database = redis_server.fresh_url().rpartition("/")[2]
        return f"redis+socket://{redis_server.socket_path}?virtual_host={database}"

    @pytest.fixture
    def backend_options(self) -> dict[str, Any]:
        return {"global_keyprefix": "shop"}


class TestRedisCompressed(TestRedis):
    """With documents that the script on the server cannot read: they are looked at here."""

    @pytest.fixture
    def spec(self, backend_url: str, backend_options: dict[str, Any]) -> BackendSpec:
        return BackendSpec(url=backend_url, codecs=Codecs(), compression="zlib", options=backend_options)
