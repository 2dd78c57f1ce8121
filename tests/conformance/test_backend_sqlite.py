"""The embedded result store owes what every result backend owes."""

from __future__ import annotations

from pathlib import Path

import pytest

from celeriac.testing.conformance.backends import BackendConformance


class TestSqlite(BackendConformance):
    @pytest.fixture
    def backend_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/results.db"

    @pytest.fixture
    def unreachable_url(self) -> str:
        return "sqlite:////proc/nowhere/results.db"
