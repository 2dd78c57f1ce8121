"""Schedulers that are killed while they lead: each slot of each entry is sent once, and soon."""

from __future__ import annotations

import random
from pathlib import Path

from faults.beats import Beats, play


def test_each_slot_is_sent_once_whichever_scheduler_is_killed(redis_url: str, tmp_path: Path) -> None:
    chance = random.Random()

    with Beats(tmp_path, redis_url) as beats:
        outcome = play(beats, 3, chance)

    assert outcome.is_right, outcome
    assert outcome.slots >= 4
