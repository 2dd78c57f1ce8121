"""Pools by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from celeriac import pools
from celeriac.errors import ConfigError
from celeriac.pools.base import PoolOptions, exit_text
from pool_harness import CommandRunner


@pytest.mark.parametrize(("kind", "size"), [("prefork", 3), ("threads", 3), ("solo", 1)])
def test_a_pool_is_made_by_its_name(kind: str, size: int) -> None:
    pool = pools.make(kind, PoolOptions(size=3), lambda: CommandRunner(Path()))

    assert (pool.kind, pool.size, pool.free()) == (kind, size, 0)


def test_an_unknown_pool_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'preform'.*prefork.*solo.*threads"):
        pools.make("preform", PoolOptions(size=1), lambda: CommandRunner(Path()))


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (-9, "Worker exited prematurely: signal 9 (SIGKILL) Job: 3."),
        (-15, "Worker exited prematurely: signal 15 (SIGTERM) Job: 3."),
        (1, "Worker exited prematurely: exitcode 1 Job: 3."),
        (-200, "Worker exited prematurely: signal 200 (unknown) Job: 3."),
    ],
)
def test_a_lost_job_is_told_in_the_words_that_tools_look_for(status: int, text: str) -> None:
    assert exit_text(status, 3) == text
