"""The obligations of `celeriac.revocations.Revocations`."""

from __future__ import annotations

import pytest

from celeriac.ports import Transport
from celeriac.revocations import Revocation, Revocations, of_stamps, of_tasks
from celeriac.testing.conformance.fixtures import TransportFixtures

_DAY: float = 86_400.0


class RevocationTests(TransportFixtures):
    """What is revoked is remembered for whoever asks later."""

    @pytest.fixture
    def revocations(self, transport: Transport) -> Revocations:
        """Return the revocations of the transport; the test is left out when it keeps none."""
        if not transport.caps.revocations:
            pytest.skip("keeps no revocations")
        return transport.revocations()

    def test_nothing_is_revoked_before_somebody_revokes(self, revocations: Revocations) -> None:
        assert revocations.recall() == []

    def test_what_is_revoked_is_remembered_with_its_age(
        self, transport: Transport, revocations: Revocations
    ) -> None:
        revocations.note(of_tasks(["a", "b"]), kept_seconds=_DAY)
        revocations.note(of_stamps({"customer": ["acme", 7], "ünï": None}), kept_seconds=_DAY)

        kept = transport.revocations().recall()

        assert {each.revocation for each in kept} == {
            Revocation("a"),
            Revocation("b"),
            Revocation('"acme"', "customer"),
            Revocation("7", "customer"),
            Revocation("null", "ünï"),
        }
        assert all(0.0 <= each.age_seconds < 60.0 for each in kept)

    def test_what_is_revoked_again_begins_anew(self, revocations: Revocations) -> None:
        revocations.note(of_tasks(["a"]), kept_seconds=_DAY)
        revocations.note(of_tasks(["b"]), kept_seconds=_DAY)
        revocations.note(of_tasks(["a"]), kept_seconds=_DAY)

        assert [each.revocation.value for each in revocations.recall()] == ["b", "a"]

    def test_what_shall_end_is_remembered_with_its_signal(
        self, transport: Transport, revocations: Revocations
    ) -> None:
        revocations.note(of_tasks(["a"]), kept_seconds=_DAY)
        revocations.note(of_tasks(["b"], "SIGKILL"), kept_seconds=_DAY)
        revocations.note(of_stamps({"customer": "acme"}, "SIGTERM"), kept_seconds=_DAY)

        kept = transport.revocations().recall()

        assert {each.revocation for each in kept} == {
            Revocation("a"),
            Revocation("b"),
            Revocation("b", signal="SIGKILL"),
            Revocation('"acme"', "customer"),
            Revocation('"acme"', "customer", "SIGTERM"),
        }
        assert all(0.0 <= each.age_seconds < 60.0 for each in kept)

    def test_of_several_signals_for_a_task_the_latest_comes_last(self, revocations: Revocations) -> None:
        for signal in ("SIGTERM", "SIGKILL", "SIGTERM"):
            revocations.note(of_tasks(["a"], signal), kept_seconds=_DAY)

        signals = [each.revocation.signal for each in revocations.recall()]

        assert [signal for signal in signals if signal] == ["SIGKILL", "SIGTERM"]

    def test_many_at_once_are_all_remembered(self, revocations: Revocations) -> None:
        ids = [f"{number:036d}" for number in range(12_000)]

        revocations.note(of_tasks(ids), kept_seconds=_DAY)

        assert sorted(each.revocation.value for each in revocations.recall()) == ids
