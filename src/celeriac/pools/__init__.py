"""Where jobs run: processes, threads, or the main thread itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from celeriac import drivers
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
    "asyncio": "celeriac.pools.hosted.aio:make_pool",
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
    found = drivers.find(kind, _BUILT_IN, GROUP)
    if found is None:
        raise ConfigError(
            f"There is no pool {kind!r}; worker_pool (-P): {drivers.hint(kind, _BUILT_IN, GROUP)}"
        )
    return cast("PoolFactory", found)(options, make_runner)
