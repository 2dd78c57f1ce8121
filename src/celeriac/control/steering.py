"""Commands that change what a worker does."""

from __future__ import annotations

import logging
from typing import Any, Final

from celeriac.control.panel import ControlCommand
from celeriac.control.state import NO_ANSWER, State, nok, ok
from celeriac.limits import tokens_per_second
from celeriac.queues import Exchange, Queue
from celeriac.routing.queues import queue_from_options

logger: logging.Logger = logging.getLogger("celery.worker.control")


def rate_limit(state: State, task_name: str, rate_limit: float | str | None, **kwargs: Any) -> Any:
    """Set how often tasks of a kind begin here, such as 10/m; 0: as often as they can."""
    try:
        tokens_per_second(rate_limit)
    except (ValueError, KeyError, TypeError) as exc:
        return nok(f"Invalid rate limit string: {exc!r}")
    task = state.app.tasks.get(task_name)
    if task is None:
        logger.error("Rate limit attempt for unknown task %s", task_name, exc_info=False)
        return nok("unknown task")
    task.rate_limit = rate_limit
    state.node.intake.rates.forget(task_name)
    if not rate_limit:
        logger.info("Rate limits disabled for tasks of type %s", task_name)
        return ok("rate limit disabled successfully")
    logger.info("New rate limit for tasks of type %s: %s.", task_name, rate_limit)
    return ok("new rate limit set successfully")


def time_limit(
    state: State, task_name: str, hard: float | None = None, soft: float | None = None, **kwargs: Any
) -> Any:
    """Set the limits in seconds of tasks of a kind that begin from now on."""
    task = state.app.tasks.get(task_name)
    if task is None:
        logger.error("Change time limit attempt for unknown task %s", task_name)
        return nok("unknown task")
    task.soft_time_limit, task.time_limit = soft, hard
    state.node.policies.renew_limits(task_name)
    logger.info("New time limits for tasks of type %s: soft=%s hard=%s", task_name, soft, hard)
    return ok("time limits set successfully")


async def add_consumer(
    state: State,
    queue: str,
    exchange: str | None = None,
    exchange_type: str | None = None,
    routing_key: str | None = None,
    **options: Any,
) -> Any:
    """Consume from one more queue."""
    node = state.node
    router = state.app.router
    if queue not in node.queues and queue not in node.paused.held:
        found = router.queues.get(queue)
        if found is None:
            found = _queue(queue, exchange or queue, exchange_type or "direct", routing_key or queue, options)
            found = router.add(found)
        await node.paused.add(found)
    logger.info("Started consuming from %s", queue)
    return ok(f"add consumer {queue}")


_QUEUE_OPTIONS: Final = frozenset(
    {*Queue.__struct_fields__, "expires", "max_priority", "message_ttl", "queue_arguments"}
)


def _queue(name: str, exchange: str, kind: str, routing_key: str, options: dict[str, Any]) -> Queue:
    known = {key: value for key, value in options.items() if key in _QUEUE_OPTIONS}
    if not known:
        return Queue(name=name, exchange=Exchange(name=exchange, type=kind), routing_key=routing_key)
    return queue_from_options(
        name, {"exchange": exchange, "exchange_type": kind, "routing_key": routing_key, **known}
    )


async def cancel_consumer(state: State, queue: str, **kwargs: Any) -> Any:
    """Consume from a queue no longer."""
    node = state.node
    if node.paused.held.pop(queue, None) is not None:
        state.app.router.remove(queue)
    if node.queues.pop(queue, None) is not None:
        state.app.router.remove(queue)
        await node.link.consumer.cancel_queue(queue)
    return ok(f"no longer consuming from {queue}")


async def pauses_changed(state: State, **kwargs: Any) -> Any:
    """Look again at which queues are paused."""
    await state.node.paused.look()
    return ok(f"paused here: {', '.join(sorted(state.node.paused.held)) or 'nothing'}")


def shutdown(state: State, msg: str = "Got shutdown from remote", **kwargs: Any) -> Any:
    """Stop once the running tasks have ended."""
    logger.warning(msg)
    state.node.stop("warm")
    return NO_ANSWER


def enable_events(state: State) -> Any:
    """Send task events."""
    if state.node.herald.on:
        return ok("task events already enabled")
    state.node.herald.on = True
    logger.info("Events of group {task} enabled by remote.")
    return ok("task events enabled")


def disable_events(state: State) -> Any:
    """Send no task events."""
    if not state.node.herald.on:
        return ok("task events already disabled")
    state.node.herald.on = False
    logger.info("Events of group {task} disabled by remote.")
    return ok("task events disabled")


def heartbeat(state: State) -> Any:
    """Send a heartbeat event now."""
    logger.debug("Heartbeat requested by remote.")
    state.node.heart.answer()


async def election(state: State, id: str, topic: str, action: Any = None, **kwargs: Any) -> Any:
    """Take part in the choice of one worker that does something."""
    if state.gossip is not None:
        await state.gossip.elect(id, topic, action)


def pool_grow(state: State, n: int = 1, **kwargs: Any) -> Any:
    """Run so many more tasks at once."""
    state.node.resize_pool(int(n))
    return ok("pool will grow")


def pool_shrink(state: State, n: int = 1, **kwargs: Any) -> Any:
    """Run so many fewer tasks at once."""
    state.node.resize_pool(-int(n))
    return ok("pool will shrink")


def autoscale(state: State, max: int | None = None, min: int | None = None) -> Any:
    """Say between how many slots the worker chooses."""
    autoscaler = state.node.autoscaler
    if autoscaler is None:
        raise ValueError("Autoscale not enabled")
    autoscaler.update(None if max is None else int(max), None if min is None else int(min))
    return ok(f"autoscale now max={autoscaler.most} min={autoscaler.fewest}")


def pool_restart(
    state: State, modules: Any = None, reload: bool = False, reloader: Any = None, **kwargs: Any
) -> Any:
    """Replace the pool's processes by fresh ones."""
    if not state.app.conf.worker_pool_restarts:
        raise ValueError("Pool restarts not enabled")
    state.node.pool.restart()
    return ok("reload started")


def _steers(name: str, run: Any, **more: Any) -> ControlCommand:
    text = (run.__doc__ or "").strip()
    return ControlCommand(name=name, run=run, kind="control", help=text, **more)


COMMANDS: Final = (
    _steers(
        "rate_limit",
        rate_limit,
        args=(("task_name", str), ("rate_limit", str)),
        signature="<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>",
    ),
    _steers(
        "time_limit",
        time_limit,
        args=(("task_name", str), ("soft", float), ("hard", float)),
        signature="<task_name> <soft_secs> [hard_secs]",
    ),
    _steers(
        "add_consumer",
        add_consumer,
        args=(("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)),
        signature="<queue> [exchange [type [routing_key]]]",
    ),
    _steers("cancel_consumer", cancel_consumer, args=(("queue", str),), signature="<queue>"),
    _steers("pauses_changed", pauses_changed, visible=False),
    _steers("shutdown", shutdown),
    _steers("enable_events", enable_events),
    _steers("disable_events", disable_events),
    _steers("heartbeat", heartbeat),
    _steers("election", election, args=(("id", str), ("topic", str), ("action", str)), visible=False),
    _steers("pool_grow", pool_grow, args=(("n", int),), signature="[N=1]"),
    _steers("pool_shrink", pool_shrink, args=(("n", int),), signature="[N=1]"),
    _steers("autoscale", autoscale, args=(("max", int), ("min", int)), signature="[max [min]]"),
    _steers("pool_restart", pool_restart),
)
