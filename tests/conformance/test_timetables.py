"""Every store of timetables owes the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from celeriac.backends import BackendSpec
from celeriac.backends.sql import SqlBackend
from celeriac.testing.conformance.timetables import Open, TimetableConformance
from celeriac.timetable import Timetable
from celeriac.transports import connect
from celeriac.transports.schedule_file import file_timetable
from servers import PostgresServer


class _OnTransport(TimetableConformance):
    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def open_timetable(self, url: str) -> Iterator[Open]:
        with closing(connect(url, {"app_name": "conformance"})) as transport:
            yield transport.timetable


class TestMemory(_OnTransport):
    @pytest.fixture
    def url(self) -> str:
        return "memory://timetables"


class TestEmbeddedBroker(_OnTransport):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/broker.db"


class TestRedis(_OnTransport):
    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return redis_url


class TestRabbitMQ(_OnTransport):
    @pytest.fixture
    def url(self, rabbitmq_url: str) -> str:
        return rabbitmq_url


class TestFile(TimetableConformance):
    @pytest.fixture
    def open_timetable(self, tmp_path: Path) -> Open:
        return lambda owner: file_timetable(f"{tmp_path}/schedule", owner)


class _InDatabase(TimetableConformance):
    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def open_timetable(self, url: str) -> Open:
        def opened(owner: str) -> Timetable:
            return SqlBackend(BackendSpec(url=url)).timetable(owner)

        return opened


class TestSqlite(_InDatabase):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"db+sqlite:///{tmp_path}/results.db"


class TestPostgres(_InDatabase):
    @pytest.fixture
    def url(self, postgres_server: PostgresServer) -> str:
        return postgres_server.fresh_url("db+postgresql")
