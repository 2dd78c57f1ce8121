"""The rpc backend keeps every obligation of a backend whose results only the sender of a task reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from celeriac.backends import BackendSpec
from celeriac.codecs import Codecs
from celeriac.testing.conformance.backends import BackendConformance
from celeriac.transports import connect


class TestRpc(BackendConformance):
    across_processes = False
    has_groups = False
    has_chords = False

    @pytest.fixture
    def spec(self, rabbitmq_url: str, backend_options: dict[str, Any]) -> Iterator[BackendSpec]:
        transport = connect(rabbitmq_url)
        spec = BackendSpec(url="rpc://", codecs=Codecs(), options=backend_options)
        yield msgspec.structs.replace(spec, transport=transport)
        transport.close()
