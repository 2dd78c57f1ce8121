"""What a worker is started with, besides the settings."""

from __future__ import annotations

import logging
from typing import Any

import msgspec


class NodeOptions(msgspec.Struct, kw_only=True):
    """The options of one node; None leaves it to the setting of that name."""

    hostname: str  # node name, such as celery@host
    concurrency: int | None = None
    autoscale: tuple[int, int] | None = None  # slots: at most, at least
    pool: str | None = None
    queues: tuple[str, ...] = ()  # consume only from these
    exclude_queues: tuple[str, ...] = ()
    include: tuple[str, ...] = ()  # modules to import besides the app's
    events: bool | None = None
    prefetch_multiplier: int | None = None  # 0 = no limit
    optimization: str = "default"
    max_tasks_per_child: int | None = None
    max_memory_per_child_kib: int | None = None
    time_limit: float | None = None  # seconds, for tasks with none of their own
    soft_time_limit: float | None = None
    without_gossip: bool = False
    without_mingle: bool = False
    without_heartbeat: bool = False
    heartbeat_interval: float | None = None  # seconds
    statedb: str | None = None  # the file's path
    loglevel: int = logging.WARNING
    logfile: str | None = None
    pidfile: str | None = None
    extra: dict[str, Any] = {}  # Any: what the program has added to the command line
