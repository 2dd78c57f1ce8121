"""What events have told of one task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from celeriac import states
from celeriac.events.worker import Worker

TASK_EVENT_TO_STATE: Final = {
    "sent": states.PENDING,
    "received": states.RECEIVED,
    "started": states.STARTED,
    "failed": states.FAILURE,
    "retried": states.RETRY,
    "succeeded": states.SUCCESS,
    "revoked": states.REVOKED,
    "rejected": states.REJECTED,
}

# Strong before weak: what comes late and is weaker does not change the state. None: one of somebody's own.
_STRENGTH: Final[tuple[str | None, ...]] = (
    states.SUCCESS, states.FAILURE, None, states.REVOKED, states.STARTED, states.RECEIVED, states.REJECTED,
    states.RETRY, states.PENDING,
)  # fmt: skip
_OF_STATE: Final = {state: place for place, state in enumerate(_STRENGTH)}
_MERGED: Final = {
    states.RECEIVED: ("name", "args", "kwargs", "parent_id", "root_id", "retries", "eta", "expires")
}
_TIMES: Final = {
    states.PENDING: "sent",
    states.RECEIVED: "received",
    states.STARTED: "started",
    states.FAILURE: "failed",
    states.RETRY: "retried",
    states.SUCCESS: "succeeded",
    states.REVOKED: "revoked",
    states.REJECTED: "rejected",
}


def _is_weaker(state: str, than: str) -> bool:
    """Return whether a state that comes late stands behind one that is known."""
    own = _OF_STATE[None]
    return _OF_STATE.get(state, own) > _OF_STATE.get(than, own)


class Task:
    """One task.

    Args:
        uuid: Its id.
        cluster_state: What is known of others: those that it comes from are looked up there.
        children: Those that it has sent.
        **kwargs: Other fields.
    """

    uuid: Any = None
    name: Any = None
    received: Any = None
    sent: Any = None
    started: Any = None
    succeeded: Any = None
    failed: Any = None
    retried: Any = None
    revoked: Any = None
    rejected: Any = None
    args: Any = None
    kwargs: Any = None
    eta: Any = None
    expires: Any = None
    retries: Any = None
    worker: Worker | None = None
    result: Any = None
    exception: Any = None
    timestamp: Any = None
    runtime: Any = None
    traceback: Any = None
    exchange: Any = None
    routing_key: Any = None
    root_id: Any = None
    parent_id: Any = None
    client: Any = None
    state: str = states.PENDING
    clock: int = 0

    _fields = (
        "uuid", "name", "state", "received", "sent", "started", "rejected", "succeeded", "failed", "retried",
        "revoked", "args", "kwargs", "eta", "expires", "retries", "worker", "result", "exception",
        "timestamp", "runtime", "traceback", "exchange", "routing_key", "clock", "client", "root", "root_id",
        "parent", "parent_id", "children",
    )  # fmt: skip
    _info_fields = ("args", "kwargs", "retries", "result", "eta", "runtime", "expires", "exception",
                    "exchange", "routing_key", "root_id", "parent_id")  # fmt: skip
    merge_rules = _MERGED

    def __init__(
        self,
        uuid: str | None = None,
        cluster_state: Any = None,
        children: Iterable[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.uuid = uuid
        self.cluster_state = cluster_state
        self.children: set[Task] = set(children or ())
        self.__dict__.update(kwargs)

    def event(
        self,
        type_: str,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Take in an event, in whatever order they come.

        Args:
            type_: Its type, without the group.
            timestamp: When it was sent, in epoch seconds.
            local_received: When it came; not looked at.
            fields: What else it tells.
        """
        fields = fields or {}
        state = TASK_EVENT_TO_STATE.get(type_, type_.upper())
        if state in _TIMES:
            setattr(self, _TIMES[state], timestamp)
        late = states.RETRY not in (state, self.state) and _is_weaker(state, self.state)
        if late:
            keep = _MERGED.get(state, ())
            fields = {name: value for name, value in fields.items() if name in keep}
        else:
            fields = {**fields, "state": state, "timestamp": timestamp}
        self.__dict__.update(fields)

    def info(self, fields: Iterable[str] | None = None, extra: Iterable[str] = ()) -> dict[str, Any]:
        """Return what is known, without what is not.

        Args:
            fields: Which fields; the usual ones when not given.
            extra: More fields.
        """
        names: Sequence[str] = [*(self._info_fields if fields is None else fields), *extra]
        found = {name: getattr(self, name, None) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, other tasks by their ids."""
        told: dict[str, Any] = {}
        for name in self._fields:
            show = _SHOWN.get(name)
            told[name] = getattr(self, name) if show is None else show(self)
        return told

    @property
    def ready(self) -> bool:
        """Whether it has ended."""
        return self.state in states.READY_STATES

    @property
    def origin(self) -> Any:
        """The worker that has it, or the client that has sent it."""
        return self.worker.id if self.worker is not None else self.client

    @property
    def id(self) -> Any:
        """Its id."""
        return self.uuid

    @property
    def parent(self) -> Task | None:
        """The task that has sent it, if that is known."""
        return self._find(self.parent_id)

    @property
    def root(self) -> Task | None:
        """The first task of its workflow, if that is known."""
        return self._find(self.root_id)

    def _find(self, uuid: str | None) -> Task | None:
        if not uuid or self.cluster_state is None:
            return None
        found: Task | None = self.cluster_state.tasks.data.get(uuid)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the others."""
        return {name: value for name, value in self.__dict__.items() if name != "cluster_state"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take everything else."""
        self.__dict__.update(state, cluster_state=None)

    def __eq__(self, other: object) -> bool:
        """Compare ids."""
        return self.uuid == other.uuid if isinstance(other, Task) else NotImplemented

    def __hash__(self) -> int:
        """Hash the id."""
        return hash(self.uuid)

    def __repr__(self) -> str:
        """Show name, id and state."""
        return f"<Task: {self.name}({self.uuid}) {self.state} clock:{self.clock}>"


_SHOWN: Final[dict[str, Callable[[Task], Any]]] = {
    "children": lambda task: [child.id for child in task.children],
    "root": lambda task: task.root_id,
    "parent": lambda task: task.parent_id,
}
