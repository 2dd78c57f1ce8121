"""What events have told of a fleet: its workers and their tasks."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from celeriac.events.lru import LRUCache
from celeriac.events.task import TASK_EVENT_TO_STATE, Task
from celeriac.events.worker import HEARTBEAT_EXPIRE_WINDOW, Worker, heartbeat_expires
from celeriac.wire.event import Event, group_of

__all__ = (
    "HEARTBEAT_EXPIRE_WINDOW",
    "TASK_EVENT_TO_STATE",
    "CallableDefaultdict",
    "State",
    "Task",
    "Worker",
    "heartbeat_expires",
)

logger: logging.Logger = logging.getLogger("celery.events.state")

Subject = tuple[Any, bool]  # a worker or a task, and whether it was not known before

_DRIFT_SECONDS: Final = 16  # between two clocks before it is told
_DRIFT: Final = (
    "Substantial drift from %s may mean clocks are out of sync. Current drift is %.0f seconds, of an event "
    "that was sent at %.3f and received at %.3f."
)


class CallableDefaultdict(defaultdict[Any, Any]):
    """A `defaultdict` that can be called as well: ``tasks_by_type("name", limit=10)``.

    Args:
        fun: What a call does.
    """

    def __init__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.fun = fun
        super().__init__(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do it."""
        return self.fun(*args, **kwargs)


class State:
    """Keeps what events tell; safe for threads, and can be pickled.

    Args:
        callback: Called after each event with this object and the event.
        workers: Those to begin with.
        tasks: Those to begin with.
        taskheap: Accepted for Celery's sake: tasks are put in order when somebody asks for it.
        max_workers_in_memory: The ones used least recently are forgotten beyond that.
        max_tasks_in_memory: Likewise.
        on_node_join: Called with a worker that comes.
        on_node_leave: Called with a worker that leaves.
        tasks_by_type: Sets of tasks, by their names.
        tasks_by_worker: Sets of tasks, by their workers.
    """

    Worker: type[Any] = Worker
    Task: type[Any] = Task
    heap_multiplier = 4
    event_count: int = 0
    task_count: int = 0

    def __init__(
        self,
        callback: Callable[[State, Event], object] | None = None,
        workers: Any = None,
        tasks: Any = None,
        taskheap: Any = None,
        max_workers_in_memory: int = 5000,
        max_tasks_in_memory: int = 10000,
        on_node_join: Callable[[Any], object] | None = None,
        on_node_leave: Callable[[Any], object] | None = None,
        tasks_by_type: Any = None,
        tasks_by_worker: Any = None,
    ) -> None:
        self.event_callback = callback
        self.workers: Any = LRUCache(max_workers_in_memory) if workers is None else workers
        self.tasks: Any = LRUCache(max_tasks_in_memory) if tasks is None else tasks
        self.max_workers_in_memory = max_workers_in_memory
        self.max_tasks_in_memory = max_tasks_in_memory
        self.on_node_join = on_node_join
        self.on_node_leave = on_node_leave
        self.handlers: dict[str, Callable[[Event], object]] = {}
        self._mutex = threading.RLock()
        self._seen_types: set[str] = {task.name for task in self.tasks.values() if task.name}
        self._told_drift: set[str] = set()
        self.tasks_by_type: CallableDefaultdict = CallableDefaultdict(
            self._tasks_by_type, set, tasks_by_type or {}
        )
        self.tasks_by_worker: CallableDefaultdict = CallableDefaultdict(
            self._tasks_by_worker, set, tasks_by_worker or {}
        )
        for task in self.tasks.values():
            task.cluster_state = self

    # --- taking in -----------------------------------------------------------------------------------

    def event(self, event: Event) -> tuple[Any, str] | None:
        """Take in an event.

        Returns:
            What it is about, with whether that was not known before, and what happened to it; None for an
            event of a group that has no handler.

        Raises:
            KeyError: A field is missing that it has to have.
        """
        with self._mutex:
            return self._event(event)

    def _event(self, event: Event) -> tuple[Any, str] | None:
        self.event_count += 1
        try:
            group, _, subject = event["type"].partition("-")
            if group == "worker":
                return self._worker_event(subject, event), subject
            if group == "task":
                return self._task_event(subject, event), subject
            handler = self.handlers.get(group)
            return None if handler is None else (handler(event), subject)
        finally:
            if self.event_callback is not None:
                self.event_callback(self, event)

    def _worker_event(self, subject: str, event: Event) -> Subject:
        fields = dict(event)
        del fields["type"]
        hostname, sent = fields.pop("hostname"), fields.pop("timestamp")
        received = fields.pop("local_received", None)
        is_offline = subject == "offline"
        worker = self.workers.get(hostname)
        created = worker is None
        if worker is None:
            worker = self.Worker(hostname)
            if not is_offline:
                self.workers[hostname] = worker
        worker.event(subject, sent, received, fields)
        self._look_at_clock(hostname, sent, received)
        if is_offline:
            self.workers.pop(hostname, None)
            if self.on_node_leave is not None and not created:
                self.on_node_leave(worker)
        elif self.on_node_join is not None and (created or subject == "online"):
            self.on_node_join(worker)
        return worker, created

    def _task_event(self, subject: str, event: Event) -> Subject:
        fields = dict(event)
        kind = fields.pop("type")
        uuid, hostname, sent = fields.pop("uuid"), fields.pop("hostname"), fields.pop("timestamp")
        received = fields.pop("local_received", None)
        is_client = subject == "sent"
        task, created = self.get_or_create_task(uuid)
        if is_client:
            fields["client"] = hostname
        else:
            worker = self.workers.get(hostname)
            if worker is None:
                worker = self.workers[hostname] = self.Worker(hostname)
            if task.worker is not worker:
                if task.worker is not None:
                    self.tasks_by_worker[task.worker.hostname].discard(task)
                task.worker = worker
                self.tasks_by_worker[hostname].add(task)
            # Who tells of tasks is alive.
            worker.event("", sent, received, {"clock": fields.get("clock") or worker.clock})
        if subject == "received":
            self.task_count += 1
        fields.pop("utcoffset", None)
        task.event(subject, sent, received, fields)
        self._file(task)
        self._trim_indexes()
        assert group_of(kind) == "task"
        return task, created

    def _file(self, task: Any) -> None:
        """Enter a task under its name, and with its parent."""
        if task.name:
            self._seen_types.add(task.name)
            self.tasks_by_type[task.name].add(task)
        if task.parent_id:
            parent = self.tasks.data.get(task.parent_id)
            if parent is not None and parent is not task:
                parent.children.add(task)

    def _trim_indexes(self) -> None:
        """Forget in the indexes what was forgotten for there was too much; every now and then."""
        limit = self.tasks.limit
        if not limit or self.event_count % max(limit, 1000):
            return
        known = self.tasks.data
        for index in (self.tasks_by_type, self.tasks_by_worker):
            for key in [*index]:
                kept = {task for task in index[key] if task.uuid in known}
                if kept:
                    index[key] = kept
                else:
                    del index[key]
        for task in [*known.values()]:
            task.children = {child for child in task.children if child.uuid in known}

    def _look_at_clock(self, hostname: str, sent: float, received: float | None) -> None:
        if received is None or not isinstance(sent, (int, float)):
            return
        drift = abs(int(received) - int(sent))
        if drift > _DRIFT_SECONDS and hostname not in self._told_drift:
            self._told_drift.add(hostname)
            logger.warning(_DRIFT, hostname, drift, sent, received)

    # --- looking up ----------------------------------------------------------------------------------

    def get_or_create_worker(self, hostname: str, **kwargs: Any) -> tuple[Any, bool]:
        """Return a worker, and whether it was made now."""
        worker = self.workers.get(hostname)
        if worker is not None:
            if kwargs:
                worker.update(kwargs)
            return worker, False
        worker = self.workers[hostname] = self.Worker(hostname, **kwargs)
        return worker, True

    def get_or_create_task(self, uuid: str) -> tuple[Any, bool]:
        """Return a task, and whether it was made now."""
        task = self.tasks.get(uuid)
        if task is not None:
            return task, False
        task = self.tasks[uuid] = self.Task(uuid, cluster_state=self)
        return task, True

    def itertasks(self, limit: int | None = None) -> Iterator[tuple[str, Any]]:
        """Yield ids and tasks."""
        yield from islice([*self.tasks.data.items()], limit)

    def tasks_by_time(self, limit: int | None = None, reverse: bool = True) -> Iterator[tuple[str, Any]]:
        """Yield ids and tasks in the order of the logical clock and the time, the latest first."""
        tasks = sorted([*self.tasks.data.values()], key=_moment, reverse=reverse)
        return islice(((task.uuid, task) for task in tasks), limit)

    tasks_by_timestamp = tasks_by_time

    def _tasks_by_type(
        self, name: str, limit: int | None = None, reverse: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """Yield ids and tasks of a name, as `tasks_by_time`."""
        return islice((pair for pair in self.tasks_by_time(reverse=reverse) if pair[1].name == name), limit)

    def _tasks_by_worker(
        self, hostname: str, limit: int | None = None, reverse: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """Yield ids and tasks of a worker, as `tasks_by_time`."""
        return islice(
            (
                pair
                for pair in self.tasks_by_time(reverse=reverse)
                if pair[1].worker is not None and pair[1].worker.hostname == hostname
            ),
            limit,
        )

    def task_types(self) -> list[str]:
        """Return the names of all tasks that were heard of."""
        return sorted(self._seen_types)

    def alive_workers(self) -> Iterator[Any]:
        """Yield the workers that were heard of lately."""
        return (worker for worker in [*self.workers.data.values()] if worker.alive)

    # --- keeping -------------------------------------------------------------------------------------

    def freeze_while(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function while no event is taken in; with ``clear_after`` forget what has ended then."""
        clear_after = kwargs.pop("clear_after", False)
        with self._mutex:
            try:
                return fun(*args, **kwargs)
            finally:
                if clear_after:
                    self._clear()

    def clear_tasks(self, ready: bool = True) -> None:
        """Forget the tasks that have ended; with ``ready=False`` all."""
        with self._mutex:
            self._clear_tasks(ready)

    def _clear_tasks(self, ready: bool = True) -> None:
        kept = {} if not ready else {uuid: task for uuid, task in self.itertasks() if not task.ready}
        self.tasks.data.clear()
        self.tasks.update(kept)
        self.tasks_by_type.clear()
        self.tasks_by_worker.clear()
        for task in kept.values():
            self._file(task)
            if task.worker is not None:
                self.tasks_by_worker[task.worker.hostname].add(task)

    def clear(self, ready: bool = True) -> None:
        """Forget the tasks that have ended, or all, the workers, and what was counted."""
        with self._mutex:
            self._clear(ready)

    def _clear(self, ready: bool = True) -> None:
        self.workers.data.clear()
        self._clear_tasks(ready)
        self.event_count = self.task_count = 0

    def rebuild_taskheap(self, *args: Any) -> None:
        """Do nothing: Celery's name for what is not needed here."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle workers, tasks and limits."""
        arguments = (
            self.event_callback,
            self.workers,
            self.tasks,
            None,
            self.max_workers_in_memory,
            self.max_tasks_in_memory,
            self.on_node_join,
            self.on_node_leave,
            dict(self.tasks_by_type),
            dict(self.tasks_by_worker),
        )
        return type(self), arguments

    def __repr__(self) -> str:
        """Show how much is known."""
        return f"<State: events={self.event_count} tasks={self.task_count}>"


def _moment(task: Any) -> tuple[int, float]:
    return task.clock or 0, task.timestamp or 0.0
