"""The obligations of `celeriac.ports.ResultBackend`, as tests that every backend passes.

Two backends on the same store take part: ``client`` asks and waits, ``worker`` stores.
"""

from __future__ import annotations

from celeriac.testing.conformance.chords import ChordTests
from celeriac.testing.conformance.odd_results import OddResultTests
from celeriac.testing.conformance.storing import StoreTests
from celeriac.testing.conformance.waiting import WaitTests

__all__ = ["BackendConformance"]


class BackendConformance(StoreTests, OddResultTests, WaitTests, ChordTests):
    """Derive from it and override `backend_url`; see `BackendFixtures` for what else there is."""
