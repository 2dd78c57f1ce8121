"""The names of workers: ``name@host``."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from celeriac.queues import Exchange, Queue
from celery.utils.text import simple_format

__all__ = (
    "anon_nodename",
    "default_nodename",
    "gethostname",
    "host_format",
    "node_format",
    "nodename",
    "nodesplit",
    "worker_direct",
)

WORKER_DIRECT_EXCHANGE = Exchange(name="C.dq2")
WORKER_DIRECT_QUEUE_FORMAT = "{hostname}.dq2"
NODENAME_SEP = "@"
NODENAME_DEFAULT = "celery"

gethostname: Callable[[], str] = socket.gethostname


def nodename(name: str, hostname: str) -> str:
    """Return the name of a node: ``name@hostname``."""
    return f"{name}{NODENAME_SEP}{hostname}"


def anon_nodename(hostname: str | None = None, prefix: str = "gen") -> str:
    """Return a name for this process, which no other one on the host has."""
    return nodename(f"{prefix}{os.getpid()}", hostname or gethostname())


def nodesplit(name: str) -> tuple[None, str] | list[str]:
    """Return name and host of a node; a bare text is the host."""
    parts = name.split(NODENAME_SEP, 1)
    return parts if len(parts) == 2 else (None, *parts)  # type: ignore[return-value]  # there is one part


def default_nodename(hostname: str) -> str:
    """Return the whole name of a node of which a part is given; ``celery`` and this host complete it."""
    name, host = nodesplit(hostname or "")
    return nodename(name or NODENAME_DEFAULT, host or gethostname())


def node_format(s: str, name: str, **extra: Any) -> str:
    """Return a text with ``%h`` and such of a node; as `host_format`, and ``%p`` is its whole name."""
    short, host = nodesplit(name)
    return host_format(s, host, short or NODENAME_DEFAULT, p=name, **extra)


def host_format(s: str, host: str | None = None, name: str | None = None, **extra: Any) -> str:
    """Return a text with ``%h`` (host), ``%n`` (name, or the host's first part), ``%d`` (domain) and ``%i``.

    Args:
        s: The text.
        host: The host; this one without.
        name: The name of the node.
        **extra: Other letters.

    Raises:
        ValueError: A letter stands for nothing.
    """
    host = host or gethostname()
    first, _, domain = host.partition(".")
    # A child of our pools has no number that its log file could bear.
    keys: Mapping[str, Any] = {"h": host, "n": name or first, "d": domain, "i": "0", "I": "", **extra}
    return simple_format(s, keys)


def worker_direct(hostname: str | Queue) -> Queue:
    """Return the queue of one worker alone (see the setting `worker_direct`)."""
    if isinstance(hostname, Queue):
        return hostname
    return Queue(
        name=WORKER_DIRECT_QUEUE_FORMAT.format(hostname=hostname),
        exchange=WORKER_DIRECT_EXCHANGE,
        routing_key=hostname,
    )
