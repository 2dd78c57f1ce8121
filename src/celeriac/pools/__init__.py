"""Where jobs run: processes, threads, coroutines, greenlets, or the main thread itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, NoReturn, cast

from celeriac import drivers
from celeriac.errors import ConfigError
from celeriac.pools.base import PoolOptions, Runner
from celeriac.pools.prefork import spawned
from celeriac.pools.prefork.forker import ChildMain
from celeriac.pools.prefork.spawned import Invitation
from celeriac.ports import Pool

PoolFactory = Callable[[PoolOptions, Callable[[], Runner]], Pool]

_MainIn = Callable[[Invitation, Callable[[], Runner], PoolOptions], ChildMain]

GROUP = "celeriac.pools"  # entry points: a name and a `PoolFactory`

_BUILT_IN = {
    "prefork": "celeriac.pools.prefork.pool:PreforkPool",
    "processes": "celeriac.pools.prefork.pool:PreforkPool",
    "threads": "celeriac.pools.threads:ThreadPool",
    "solo": "celeriac.pools.solo:SoloPool",
    "asyncio": "celeriac.pools.hosted.aio:make_pool",
    "gevent": "celeriac.pools.hosted.greenlets:make_gevent_pool",
    "eventlet": "celeriac.pools.hosted.greenlets:make_eventlet_pool",
}

CUSTOM: Final = "CELERY_CUSTOM_WORKER_POOL"  # environment variable
PATCHED: Final = frozenset({"gevent", "eventlet"})  # their tasks run in a process that is patched first

_INVITED = {
    "prefork": "celeriac.pools.prefork.spawned:main_in",
    "gevent": "celeriac.pools.hosted.greenlets:main_in",
    "eventlet": "celeriac.pools.hosted.greenlets:main_in",
}


def make(kind: str, options: PoolOptions, make_runner: Callable[[], Runner]) -> Pool:
    """Return a pool that is not started yet.

    Args:
        kind: A name of ours or from the entry points `GROUP`; ``package.module:factory``, a `PoolFactory`; or
            ``custom`` for the one that the environment variable ``CELERY_CUSTOM_WORKER_POOL`` names so.
        options: How many slots, how long children live.
        make_runner: Called wherever jobs run, for what runs them.

    Raises:
        ConfigError: There is no such pool, or what it needs is not installed.
    """
    if kind == "custom":
        named = os.environ.get(CUSTOM)
        if not named:
            raise ConfigError(f"The custom pool is the one that the environment variable {CUSTOM} names.")
        return _make_dotted(named, options, make_runner)
    found = drivers.find(kind, _BUILT_IN, GROUP)
    if found is not None:
        return cast("PoolFactory", found)(options, make_runner)
    if ":" in kind or "." in kind:
        return _make_dotted(kind, options, make_runner)
    raise ConfigError(f"There is no pool {kind!r}; worker_pool (-P): {drivers.hint(kind, _BUILT_IN, GROUP)}")


def _make_dotted(dotted: str, options: PoolOptions, make_runner: Callable[[], Runner]) -> Pool:
    try:
        factory = cast("PoolFactory", drivers.load(dotted))
    except (ImportError, AttributeError, ValueError) as exc:
        raise ConfigError(f"The pool {dotted!r} cannot be loaded: {exc}") from exc
    try:
        return factory(options, make_runner)
    except TypeError as exc:
        raise ConfigError(
            f"The pool {dotted!r} cannot be made: {exc}. It is called with the options and a function that "
            "makes what runs jobs (celeriac.pools.PoolFactory); classes of Celery's BasePool are others."
        ) from exc


def serve(invited: Invitation, make_runner: Callable[[], Runner], options: PoolOptions) -> NoReturn:
    """Be a process of a pool that has begun as a program of its own, until told to stop.

    Args:
        invited: Whose process.
        make_runner: Called for what runs the jobs.
        options: The pool's.
    """
    main_in = cast("_MainIn", drivers.load(_INVITED[invited.pool]))
    spawned.serve(invited, main_in(invited, make_runner, options))
