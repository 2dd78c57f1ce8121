"""A tenant with one task does not wait behind the many of another; all run once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from worker_program import Start, until

MANY = 300
FEW = 20  # that a worker may have taken when it learns that they are short

FAIR = """

@app.task(name="proj.serve", fair_by="args.tenant")
def serve(tenant, number):
    with (HERE / "served").open("a") as file:
        file.write(f"{tenant}{number}\\n")

@app.task(name="proj.common")
def common(number):
    serve.run("common", number)
"""


@pytest.fixture
def home(home: Path) -> Path:
    with (home / "proj.py").open("a") as file:
        file.write(FAIR)
    return home


@pytest.mark.parametrize("servers", ["sqlite", pytest.param("redis", marks=pytest.mark.redis)], indirect=True)
def test_the_tasks_of_a_small_tenant_run_among_the_first_of_a_large_one(
    home: Path, proj: ModuleType, start: Start
) -> None:
    proj.serve.starmap_async(("large", number) for number in range(MANY))
    for number in range(3):
        proj.serve.delay("small", number)
        proj.common.delay(number)

    start(concurrency=1)  # of two processes one may be late with what it has taken

    path = home / "served"
    until(lambda: path.exists() and path.read_text().count("\n") >= MANY + 6)
    served = path.read_text().splitlines()
    wanted = [f"{tenant}{number}" for tenant in ("small", "common") for number in range(3)]
    assert Counter(served) == Counter([*wanted, *(f"large{number}" for number in range(MANY))])
    assert max(served.index(one) for one in wanted) < FEW
