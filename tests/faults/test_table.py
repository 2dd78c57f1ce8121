"""One case of every quick row of the fault table; `make faults` runs them all.

CELERIAC_FAULTS_SEED chooses others: the same in every process of a run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.brokers import Servers
from faults.play import play
from faults.table import ROWS, Case, cases, sample

SEED = int(os.environ.get("CELERIAC_FAULTS_SEED", "1").replace("all", "1"))


def chosen() -> Iterator[object]:
    """Yield a case of each row, with the marks of the servers that it needs."""
    quick = [case for case in cases() if case.row.quick]
    rows = sum(row.quick for row in ROWS)
    for case in sample(quick, rows, SEED, {"sqlite": 3.0, "redis": 3.0}):  # RabbitMQ takes its time
        needs = {
            *(["redis"] if case.kind == "redis" or case.row.results_elsewhere else []),
            *(["rabbitmq"] if case.kind in ("rabbitmq", "quorum") else []),
        }
        yield pytest.param(case, id=str(case), marks=[getattr(pytest.mark, need) for need in sorted(needs)])


@pytest.mark.parametrize("case", list(chosen()))
def test_what_is_promised_holds(case: Case, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    servers = Servers()
    for mark in request.node.iter_markers():
        if mark.name in ("redis", "rabbitmq"):
            setattr(servers, mark.name, request.getfixturevalue(f"{mark.name}_server"))

    played = play(case, servers, tmp_path)

    assert not played.problems, "\n".join([*played.problems, played.story])
