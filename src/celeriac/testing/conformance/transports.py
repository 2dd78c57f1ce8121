"""The obligations of `celeriac.ports.Transport`, as tests that every transport passes."""

from __future__ import annotations

from celeriac.testing.conformance.broadcasts import BroadcastTests
from celeriac.testing.conformance.bursts import BurstTests
from celeriac.testing.conformance.leases import LeaseTests
from celeriac.testing.conformance.letters import LetterTests
from celeriac.testing.conformance.locks import LockTests
from celeriac.testing.conformance.pauses import PauseTests
from celeriac.testing.conformance.permits import PermitTests
from celeriac.testing.conformance.publishing import PublishTests
from celeriac.testing.conformance.receiving import ReceiveTests
from celeriac.testing.conformance.revocations import RevocationTests
from celeriac.testing.conformance.rounds import RoundTests
from celeriac.testing.conformance.settling import SettleTests

__all__ = ["TransportConformance"]


class TransportConformance(
    PublishTests,
    ReceiveTests,
    SettleTests,
    LetterTests,
    LeaseTests,
    BroadcastTests,
    PermitTests,
    LockTests,
    BurstTests,
    RevocationTests,
    PauseTests,
    RoundTests,
):
    """Derive from it and override `broker_url`; see `TransportFixtures` for what else there is."""
