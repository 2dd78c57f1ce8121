"""Commands that ask about a worker."""

from __future__ import annotations

import importlib
import os
import resource
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from celeriac import connections
from celeriac.control.mingle import take_over
from celeriac.control.panel import ControlCommand
from celeriac.control.state import State, nok, ok
from celeriac.net.url import mask, parse
from celeriac.queues import Queue
from celeriac.routing.queues import queue_from
from celeriac.settings.secrets import censor

if TYPE_CHECKING:
    from celeriac.node.node import Node

_IMPLEMENTATIONS: Final = {
    "prefork": "celery.concurrency.prefork:TaskPool",
    "solo": "celery.concurrency.solo:TaskPool",
    "threads": "celery.concurrency.thread:TaskPool",
}
_TRANSPORTS: Final = {"rediss": "redis", "redis+socket": "redis", "amqps": "amqp", "pyamqp": "amqp"}
_QUEUE_ARGUMENTS: Final = {
    "expires": ("x-expires", 1000.0),
    "message_ttl": ("x-message-ttl", 1000.0),
    "max_length": ("x-max-length", 1),
    "max_length_bytes": ("x-max-length-bytes", 1),
    "max_priority": ("x-max-priority", 1),
}


def ping(state: State) -> Any:
    """Tell that the worker is there."""
    return {"ok": "pong"}


def clock(state: State) -> Any:
    """Tell the logical clock."""
    return {"clock": state.app.clock.value}


def stats(state: State) -> Any:
    """Tell figures about tasks, pool, broker and resources."""
    node = state.node
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "total": {name: count for name, count in node.policies.counts().items() if count},
        "pid": os.getpid(),
        "clock": str(state.app.clock.value),
        "uptime": round(time.monotonic() - node.born),
        "pool": _pool(node),
        **({"autoscaler": node.autoscaler.info()} if node.autoscaler is not None else {}),
        "broker": _broker(state),
        "prefetch_count": node.dispatcher.prefetch(),
        "rusage": {name[3:]: getattr(usage, name) for name in dir(usage) if name.startswith("ru_")},
    }


def _pool(node: Node) -> dict[str, Any]:
    pool = node.pool
    limits = [node.settings.soft_time_limit or 0, node.settings.time_limit or 0]
    told: dict[str, Any] = {
        "implementation": _IMPLEMENTATIONS.get(pool.kind, pool.kind),
        "max-concurrency": pool.size,
    }
    if pool.kind == "threads":
        return {**told, "threads": pool.size}
    if pool.kind == "solo":
        return {**told, "processes": [os.getpid()], "max-tasks-per-child": None, "timeouts": []}
    writes = {
        "total": sum(node.policies.counts().values()),
        "avg": "0.00",
        "all": "",
        "raw": "",
        "strategy": "fair",
        "inqueues": {"total": pool.size, "active": len(pool.running())},
    }
    return {
        **told,
        "processes": list(pool.pids()),
        "max-tasks-per-child": node.app.conf.worker_max_tasks_per_child or "N/A",
        "put-guarded-by-semaphore": False,
        "timeouts": limits,
        "writes": writes,
    }


def _broker(state: State) -> dict[str, Any]:
    conf = state.app.conf
    first, *others = connections.broker_url(conf, write=False).split(";")
    url = parse(first.strip())
    scheme = _TRANSPORTS.get(url.scheme, url.scheme)
    return {
        "hostname": url.host,
        "userid": url.user,
        "virtual_host": url.path or ("/" if scheme == "amqp" else ""),
        "port": url.port,
        "insist": False,
        "ssl": bool(conf.broker_use_ssl),
        "transport": scheme,
        "connect_timeout": conf.broker_connection_timeout,
        "transport_options": {
            str(name): censor(str(name), value)
            for name, value in conf.broker_transport_options.items()
            if isinstance(value, (str, int, float, bool, list, dict))
        },
        "login_method": conf.broker_login_method or ("PLAIN" if scheme == "amqp" else None),
        "uri_prefix": None,
        "heartbeat": float(conf.broker_heartbeat or 0),
        "failover_strategy": conf.broker_failover_strategy or "round-robin",
        "alternates": [mask(other.strip()) for other in others],
        "credential_provider": None,
    }


def active_queues(state: State) -> Any:
    """Tell the queues that are consumed from."""
    return [queue_info(queue) for queue in state.node.queues.values()]


def queue_info(queue: Queue) -> dict[str, Any]:
    """Return what is told of a queue, in kombu's words."""
    exchange = queue.exchange
    limits: dict[str, Any] = {}
    for name, (argument, factor) in _QUEUE_ARGUMENTS.items():
        value = queue.arguments.get(argument)
        limits[name] = value if value is None or factor == 1 else value / factor
    return {
        "name": queue.name,
        "exchange": {
            "name": exchange.name,
            "type": exchange.type,
            "arguments": exchange.arguments or None,
            "durable": exchange.durable,
            "passive": False,
            "auto_delete": exchange.auto_delete,
            "delivery_mode": exchange.delivery_mode,
            "no_declare": False,
        },
        "routing_key": queue.routing_key,
        "queue_arguments": queue.arguments or None,
        "binding_arguments": None,
        "consumer_arguments": queue.consumer_arguments or None,
        "durable": queue.durable,
        "exclusive": queue.exclusive,
        "auto_delete": queue.auto_delete,
        "no_ack": queue.no_ack,
        "alias": queue.alias,
        "bindings": [msgspec.to_builtins(binding) for binding in queue.bindings],
        "no_declare": None,
        **limits,
    }


def conf(state: State, with_defaults: bool = False) -> Any:
    """Tell the settings, without secrets."""
    settings = state.app.conf
    values = {name: settings[name] for name in settings} if with_defaults else settings.changes
    return {str(name): _plain(censor(str(name), value)) for name, value in sorted(values.items())}


def _plain(value: Any) -> Any:
    if hasattr(value, "exchange") and hasattr(value, "routing_key"):
        return queue_info(queue_from(value))
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else repr(value)


def report(state: State) -> Any:
    """Tell what to put into a bug report."""
    # What looks for installed packages takes long to load, and nobody else needs it.
    return ok(importlib.import_module("celeriac.bugreport").describe(state.app))


def hello(state: State, from_node: str, revoked: Any = None, **kwargs: Any) -> Any:
    """Exchange clocks and revoked tasks with another worker."""
    if from_node == state.hostname:
        return None
    take_over(state.node, revoked)
    return {"revoked": state.node.revoked.with_times(), "clock": state.app.clock.forward()}


def memsample(state: State) -> Any:
    """Tell how much memory the worker uses."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return None
    text = f"{pages * resource.getpagesize() / 2**20:.2f}MB"
    state.memory.append(text)
    return text


def memdump(state: State, samples: int = 10, **kwargs: Any) -> Any:
    """Tell what `memsample` told lately."""
    chosen = list(state.memory)[-int(samples) :]
    return "\n".join(["- mem (first/last)", *chosen, f"- current: {memsample(state)}"])


def objgraph(state: State, num: int = 200, max_depth: int = 10, type: str = "Request") -> Any:
    """Say that no graphs of objects are drawn here."""
    return nok("ImportError('Requires the objgraph library')")


def _asks(name: str, run: Any, **more: Any) -> ControlCommand:
    text = (run.__doc__ or "").strip()
    return ControlCommand(name=name, run=run, kind="inspect", help=text, **more)


COMMANDS: Final = (
    _asks("ping", ping, default_timeout=0.2),
    _asks("clock", clock),
    _asks("stats", stats),
    _asks("active_queues", active_queues),
    _asks(
        "conf",
        conf,
        alias="dump_conf",
        signature="[include_defaults=False]",
        args=(("with_defaults", lambda text: text.lower() in ("1", "true", "yes", "on")),),
    ),
    _asks("report", report),
    _asks("hello", hello, visible=False),
    _asks("memsample", memsample),
    _asks("memdump", memdump, signature="[n_samples=10]", args=(("samples", int),)),
    _asks(
        "objgraph",
        objgraph,
        signature="[object_type=Request] [num=200 [max_depth=10]]",
        args=(("type", str), ("num", int), ("max_depth", int)),
    ),
)
