"""Commands that ask about tasks."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from celeriac.control.panel import ControlCommand
from celeriac.control.parked import parked
from celeriac.control.state import State
from celeriac.control.task_info import TaskInfo, task_info
from celeriac.message import Started

if TYPE_CHECKING:
    from celeriac.node.work import Work

_TOLD_OF_TASKS: Final = ("exchange", "routing_key", "rate_limit")
_TIMER_PRIORITY: Final = 6  # what Celery tells of every task that waits for its time


def active(state: State, safe: bool | None = False, **kwargs: Any) -> Any:
    """Tell the tasks that run."""
    return [_info(state, work, started, safe=bool(safe)) for work, started in _running(state)]


def reserved(state: State, **kwargs: Any) -> Any:
    """Tell the tasks that were taken and have not begun."""
    return [_info(state, work, None) for work in _waiting(state)]


async def scheduled(state: State, **kwargs: Any) -> Any:
    """Tell the tasks that wait for their time, here or at the broker; of the latter the first 1,000 a queue.

    Every worker of a queue tells those at the broker: it holds them for all of them.
    """
    zone = state.app.timezone
    waiting = state.node.intake.timers.held() + await parked(state.node)
    return [
        {
            "eta": _moment(until, zone),
            "priority": _TIMER_PRIORITY,
            "request": _info(state, work, None),
        }
        for work, until in waiting
    ]


def _moment(until: float, zone: datetime.tzinfo) -> str:
    try:
        return datetime.datetime.fromtimestamp(until, zone).isoformat()
    except (ValueError, OverflowError):  # an hour before the end of the calendar, elsewhere
        return datetime.datetime.max.replace(tzinfo=zone).isoformat()


def query_task(state: State, ids: Iterable[str] | str, **kwargs: Any) -> Any:
    """Tell what is known of tasks by their ids."""
    wanted = {ids} if isinstance(ids, str) else set(ids)
    found: dict[str, list[Any]] = {}
    for work in _waiting(state):
        if work.headers.id in wanted:
            found[work.headers.id] = ["reserved", _info(state, work, None)]
    for work, started in _running(state):
        if work.headers.id in wanted:
            found[work.headers.id] = ["active", _info(state, work, started)]
    return found


def revoked(state: State, **kwargs: Any) -> Any:
    """Tell the ids of revoked tasks."""
    return state.node.revoked.ids()


def registered(
    state: State, taskinfoitems: Iterable[str] | None = None, builtins: bool = False, **kwargs: Any
) -> Any:
    """Tell the tasks that the worker knows, with some of their attributes."""
    tasks = state.app.tasks
    wanted = list(taskinfoitems or ()) or _TOLD_OF_TASKS
    names = sorted(name for name in tasks if builtins or not name.startswith("celery."))
    return [_described(name, tasks[name], wanted) for name in names]


def _described(name: str, task: Any, attributes: Iterable[str]) -> str:
    told = [
        f"{attribute}={value}"
        for attribute in attributes
        if (value := getattr(task, attribute, None)) is not None
    ]
    return f"{name} [{' '.join(told)}]" if told else name


def _running(state: State) -> list[tuple[Work, Started]]:
    ledger = state.node.ledger
    pairs = [(ledger.get(started.number), started) for started in state.node.pool.running()]
    return [(work, started) for work, started in pairs if work is not None]


def _waiting(state: State) -> list[Work]:
    node = state.node
    elsewhere = {started.number for started in node.pool.running()}
    elsewhere.update(work.number for work, _ in node.intake.timers.held())
    return [work for work in node.ledger if work.number not in elsewhere]


def _info(state: State, work: Work, started: Started | None, *, safe: bool = False) -> TaskInfo:
    return task_info(state.app, state.hostname, work, started, safe=safe)


def _asks(name: str, run: Any, **more: Any) -> ControlCommand:
    text = (run.__doc__ or "").strip()
    return ControlCommand(name=name, run=run, kind="inspect", help=text, **more)


COMMANDS: Final = (
    _asks("active", active, alias="dump_active"),
    _asks("reserved", reserved, alias="dump_reserved"),
    _asks("scheduled", scheduled, alias="dump_schedule"),
    _asks("query_task", query_task, variadic="ids", signature="[id1 [id2 [... [idN]]]]"),
    _asks("revoked", revoked, alias="dump_revoked"),
    _asks(
        "registered",
        registered,
        alias="dump_tasks",
        variadic="taskinfoitems",
        signature="[attr1 [attr2 [... [attrN]]]]",
    ),
)
