"""How many messages a worker holds, as the command line and the settings ask for."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.testing.worker import start_worker
from job_factory import memory_app

SLOTS = 2


@pytest.mark.parametrize(
    ("settings", "options", "held"),
    [
        ({}, {}, SLOTS),  # fair: nothing that could not begin
        ({"worker_prefetch_multiplier": 4}, {}, 4 * SLOTS),
        ({}, {"prefetch_multiplier": 3}, 3 * SLOTS),
        ({"worker_prefetch_multiplier": 4}, {"prefetch_multiplier": 1}, SLOTS),
        ({"worker_prefetch_multiplier": 4, "worker_disable_prefetch": True}, {}, SLOTS),
    ],
)
def test_a_worker_that_has_run_nothing_holds_what_it_is_asked_to(
    settings: dict[str, Any], options: dict[str, Any], held: int
) -> None:
    app = memory_app(**settings)

    with start_worker(app, pool="threads", concurrency=SLOTS, **options) as worker:
        assert worker.node is not None
        assert worker.node.dispatcher.prefetch() == held
