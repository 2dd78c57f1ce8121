"""A year of clocks that are set and schedulers that die: every slot becomes what its policy says."""

from __future__ import annotations

import pytest

from faults.year import play


@pytest.mark.parametrize("seed", [1])
def test_every_slot_of_a_year_becomes_what_its_policy_says(seed: int) -> None:
    outcome = play(seed)

    assert outcome.is_right, outcome
    assert outcome.passed_over > 100
    assert outcome.late > 100
