"""Where jobs run: processes, threads, or the main thread itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import cast

from celeriac.errors import ConfigError
from celeriac.pools.base import PoolOptions, Runner
from celeriac.ports import Pool

PoolFactory = Callable[[PoolOptions, Callable[[], Runner]], Pool]

GROUP = "celeriac.pools"  # entry points: a name and a `PoolFactory`

_BUILT_IN = {
    "prefork": "celeriac.pools.prefork.pool:PreforkPool",
    "processes": "celeriac.pools.prefork.pool:PreforkPool",
    "threads": "celeriac.pools.threads:ThreadPool",
    "solo": "celeriac.pools.solo:SoloPool",
}


def make(kind: str, options: PoolOptions, make_runner: Callable[[], Runner]) -> Pool:
    """Return a pool that is not started yet.

    Args:
        kind: ``prefork``, ``threads``, ``solo`` or a name from the entry points `GROUP`.
        options: How many slots, how long children live.
        make_runner: Called wherever jobs run, for what runs them.

    Raises:
        ConfigError: There is no such pool.
    """
    return _factory(kind)(options, make_runner)


def _factory(kind: str) -> PoolFactory:
    if kind in _BUILT_IN:
        module, _, name = _BUILT_IN[kind].partition(":")
        return cast("PoolFactory", getattr(importlib.import_module(module), name))
    others = entry_points(group=GROUP)
    if kind in others.names:
        return cast("PoolFactory", others[kind].load())
    known = ", ".join(sorted({*_BUILT_IN, *others.names}))
    raise ConfigError(f"There is no pool {kind!r}; worker_pool (-P) can be one of: {known}.")
