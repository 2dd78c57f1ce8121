"""The memory transport keeps every obligation."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from celeriac.ports import Transport
from celeriac.queues import Queue
from celeriac.testing.conformance.transports import TransportConformance
from celeriac.transports.memory import MemoryTransport


class TestMemory(TransportConformance):
    @pytest.fixture
    def broker_url(self) -> str:
        return f"memory://{uuid.uuid4().hex}"

    @pytest.fixture
    def put_raw(self, transport: Transport) -> Callable[[Queue, bytes], None]:
        assert isinstance(transport, MemoryTransport)
        broker = transport.broker
        return lambda queue, data: broker.put_raw(queue.name, data)
