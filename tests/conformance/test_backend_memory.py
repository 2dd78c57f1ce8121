"""The memory backend owes what every result backend owes, inside one process."""

from __future__ import annotations

import uuid

import pytest

from celeriac.testing.conformance.backends import BackendConformance


class TestMemory(BackendConformance):
    across_processes = False

    @pytest.fixture
    def backend_url(self) -> str:
        return f"memory://{uuid.uuid4().hex}"
