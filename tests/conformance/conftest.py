"""Asserts of the shipped suites tell their values, as those of test modules do."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("celeriac.testing.conformance")
