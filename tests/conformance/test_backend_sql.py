"""The database backend owes what every result backend owes, on SQLite and on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from celeriac.message import Record
from celeriac.testing.conformance.backends import BackendConformance
from servers import PostgresServer, free_port


def _spoilt(record: Record) -> Record:
    """Return a record whose pickle is none; what is around it is no business of others'."""
    _, *rest = msgspec.msgpack.decode(record.payload)
    return msgspec.structs.replace(record, payload=msgspec.msgpack.encode([b"no pickle", *rest]))


class TestSqlite(BackendConformance):
    keeps_relations = False  # Celery's tables have no columns for them
    spoilt = staticmethod(_spoilt)

    @pytest.fixture
    def backend_url(self, tmp_path: Path) -> str:
        return f"db+sqlite:///{tmp_path}/results.sqlite3"

    @pytest.fixture
    def unreachable_url(self, tmp_path: Path) -> str:
        return f"db+sqlite:///{tmp_path}/no/such/folder/results.sqlite3"


class TestPostgres(BackendConformance):
    keeps_relations = False
    spoilt = staticmethod(_spoilt)

    @pytest.fixture
    def backend_url(self, postgres_server: PostgresServer) -> str:
        return postgres_server.fresh_url("db+postgresql")

    @pytest.fixture
    def unreachable_url(self) -> str:
        return f"db+postgresql://celeriac:sekrit@127.0.0.1:{free_port()}/results"
