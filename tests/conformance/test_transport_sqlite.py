"""The embedded broker keeps every obligation."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac.queues import Queue
from celeriac.testing.conformance.transports import TransportConformance


class TestSqlite(TransportConformance):
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "broker.db"

    @pytest.fixture
    def broker_url(self, file: Path) -> str:
        return f"sqlite:///{file}"

    @pytest.fixture
    def unreachable_url(self) -> str:
        return "sqlite:////proc/nowhere/broker.db"

    @pytest.fixture
    def put_raw(self, file: Path) -> Callable[[Queue, bytes], None]:
        def put(queue: Queue, data: bytes) -> None:
            connection = sqlite3.connect(file)
            with connection:
                cursor = connection.execute("INSERT INTO messages (blob) VALUES (?)", (data,))
                connection.execute(
                    "INSERT INTO ready (queue, rank, id, handed, flags) VALUES (?, 255, ?, 0, 0)",
                    (queue.name, cursor.lastrowid),
                )
            connection.close()

        return put
