"""Pools by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac import pools
from celeriac.errors import ConfigError
from celeriac.pools.base import PoolOptions, Runner, exit_text
from celeriac.pools.hosted.greenlets import split_program
from celeriac.pools.threads import ThreadPool
from pool_harness import CommandRunner


@pytest.mark.parametrize(("kind", "size"), [("prefork", 3), ("threads", 3), ("solo", 1), ("asyncio", 3)])
def test_a_pool_is_made_by_its_name(kind: str, size: int) -> None:
    pool = pools.make(kind, PoolOptions(size=3), lambda: CommandRunner(Path()))

    assert (pool.kind, pool.size, pool.free()) == (kind, size, 0)


def test_an_unknown_pool_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'preform'.*prefork.*solo.*threads"):
        pools.make("preform", PoolOptions(size=1), lambda: CommandRunner(Path()))


def made_by_dotted_name(options: PoolOptions, make_runner: Callable[[], Runner]) -> ThreadPool:
    return ThreadPool(options, make_runner)


def test_a_pool_of_somebodys_own_is_made_by_its_dotted_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mypools", sys.modules[__name__])
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "mypools:made_by_dotted_name")

    made = [
        pools.make(kind, PoolOptions(size=2), lambda: CommandRunner(Path()))
        for kind in ("mypools:made_by_dotted_name", "mypools.made_by_dotted_name", "custom")
    ]

    assert [pool.size for pool in made] == [2, 2, 2]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("asyncoi", "did you mean 'asyncio'"),
        ("no_such_module:Pool", "'no_such_module:Pool' cannot be loaded"),
        ("json:loads", "PoolFactory"),
        ("custom", "CELERY_CUSTOM_WORKER_POOL"),
        ("gevent", "command line"),
    ],
)
def test_a_pool_that_cannot_be_is_refused_with_the_reason(
    kind: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CELERY_CUSTOM_WORKER_POOL", raising=False)

    with pytest.raises(ConfigError, match=text):
        pools.make(kind, PoolOptions(size=1), lambda: CommandRunner(Path()))


@pytest.mark.parametrize(
    ("program", "what"),
    [
        ("python script.py -c 2", "script.py -c 2"),
        ("python -W error -X dev -u -m celeriac -A x", "-m celeriac -A x"),
        ("python -c code -m", "-c code -m"),
    ],
)
def test_what_a_command_line_runs_is_told_from_the_interpreters_options(program: str, what: str) -> None:
    before, after = split_program(tuple(program.split()))

    assert after == tuple(what.split())
    assert before + after == tuple(program.split())


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
