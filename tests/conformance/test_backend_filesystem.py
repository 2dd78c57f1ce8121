"""The filesystem backend owes what every result backend owes."""

from __future__ import annotations

from pathlib import Path

import pytest

from celeriac.testing.conformance.backends import BackendConformance


class TestFilesystem(BackendConformance):
    @pytest.fixture
    def backend_url(self, tmp_path: Path) -> str:
        return f"file://{tmp_path}"

    @pytest.fixture
    def unreachable_url(self, tmp_path: Path) -> str:
        return f"file://{tmp_path}/no/such/folder"
