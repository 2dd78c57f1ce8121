"""RabbitMQ keeps every obligation of a transport."""

from __future__ import annotations

import pytest

from celeriac.testing.conformance.transports import TransportConformance
from servers import free_port


class TestAmqp(TransportConformance):
    tells_how_many_hear = False

    @pytest.fixture
    def broker_url(self, rabbitmq_url: str) -> str:
        return rabbitmq_url

    @pytest.fixture
    def unreachable_url(self) -> str:
        return f"amqp://somebody:sekrit@127.0.0.1:{free_port()}/test"
