"""Programs that change schedules at RabbitMQ and are killed: what they were told to be changed is."""

from __future__ import annotations

import random
from pathlib import Path

from faults.edits import play


def test_what_was_changed_stays_so_whichever_editor_is_killed(rabbitmq_url: str, tmp_path: Path) -> None:
    outcome = play(rabbitmq_url, tmp_path, 6, random.Random())

    assert outcome.is_right, outcome
    assert outcome.confirmed >= 10
