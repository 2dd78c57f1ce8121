"""The names of workers: ``name@host``."""

from __future__ import annotations

import socket
from collections.abc import Callable

from celeriac.queues import Exchange, Queue

__all__ = ("gethostname", "nodename", "nodesplit", "worker_direct")

WORKER_DIRECT_EXCHANGE = Exchange(name="C.dq2")
WORKER_DIRECT_QUEUE_FORMAT = "{hostname}.dq2"
NODENAME_SEP = "@"
NODENAME_DEFAULT = "celery"

gethostname: Callable[[], str] = socket.gethostname


def nodename(name: str, hostname: str) -> str:
    """Return the name of a node: ``name@hostname``."""
    return f"{name}{NODENAME_SEP}{hostname}"


def nodesplit(name: str) -> list[str | None]:
    """Return name and host of a node; a bare text is the host."""
    parts: list[str | None] = list(name.split(NODENAME_SEP, 1))
    return parts if len(parts) == 2 else [None, *parts]


def worker_direct(hostname: str | Queue) -> Queue:
    """Return the queue of one worker alone (see the setting `worker_direct`)."""
    if isinstance(hostname, Queue):
        return hostname
    return Queue(
        name=WORKER_DIRECT_QUEUE_FORMAT.format(hostname=hostname),
        exchange=WORKER_DIRECT_EXCHANGE,
        routing_key=hostname,
    )
