"""The herald: tells those who watch what becomes of tasks, when somebody wants that."""

from __future__ import annotations

import datetime

from celeriac.events.stream import EventStream
from celeriac.execute.loss import ending_of
from celeriac.message import Finished, OutcomeKind, TaskHeaders
from celeriac.node.policy import Policy
from celeriac.node.witness import Witness
from celeriac.node.work import Work
from celeriac.saferepr import saferepr
from celeriac.wire.task_event import (
    TaskEvent,
    TaskFailed,
    TaskReceived,
    TaskRejected,
    TaskRetried,
    TaskRevoked,
    TaskStarted,
    TaskSucceeded,
)

_FAILURES: dict[OutcomeKind, type[TaskFailed | TaskRetried]] = {
    "failure": TaskFailed,
    "invalid": TaskFailed,
    "retry": TaskRetried,
}
_REJECTIONS: dict[OutcomeKind, bool] = {"reject": False, "requeue": True}  # whether it is to run again


class Herald:
    """Tells events of tasks. It says nothing as long as it is not `on`, nor of tasks that do not want it.

    Args:
        stream: Where events go.
        on: Whether to tell from the beginning.
    """

    def __init__(self, stream: EventStream, *, on: bool = False) -> None:
        self.stream = stream
        self.on: bool = on
        self.witness: Witness | None = None  # others' code that has to see some of them, events or not

    def tells(self, policy: Policy) -> bool:
        """Return whether events of a kind of task are told."""
        return self.on and policy.sends_events

    def received(self, work: Work) -> None:
        """Tell that a task was received and is going to be run; have its child say what it returns."""
        if not self.tells(work.policy):
            return
        work.tells = True
        headers = work.headers
        self.stream.tell(
            TaskReceived(
                uuid=headers.id,
                name=headers.task,
                args=headers.argsrepr,
                kwargs=headers.kwargsrepr,
                root_id=headers.root_id,
                parent_id=headers.parent_id,
                retries=headers.retries or 0,
                eta=_moment(headers.eta),
                expires=_moment(headers.expires),
            )
        )

    def started(self, work: Work, at: float | None = None) -> None:
        """Tell that a task has begun.

        Args:
            work: The task.
            at: Epoch seconds; now, when not given.
        """
        if self.tells(work.policy):
            self.stream.tell(TaskStarted(uuid=work.headers.id), at)

    def ending(self, work: Work, report: Finished) -> TaskEvent | None:
        """Return what is to be told of a task's end once that is written down; None: nothing.

        Args:
            work: The task.
            report: Of its run, or of its obituary.
        """
        if not self.tells(work.policy):
            return None
        if work.lost is not None:
            return self.loss(work)
        kind, uuid = report.kind, work.headers.id
        if kind == "success":
            return TaskSucceeded(uuid=uuid, result=report.result_repr, runtime=report.runtime)
        if kind == "revoked":
            return TaskRevoked(uuid=uuid)
        if kind in _REJECTIONS:
            # What was acknowledged when it began cannot be rejected.
            return TaskRejected(uuid=uuid, requeue=_REJECTIONS[kind]) if _is_late(work) else None
        failure = _FAILURES.get(kind)
        if failure is None:
            return None
        return failure(uuid=uuid, exception=report.exception_repr, traceback=report.traceback or "")

    def loss(self, work: Work) -> TaskEvent | None:
        """Return what is to be told of a task that was not run to its end; None: that was told already."""
        lost = work.lost
        assert lost is not None
        if not self.tells(work.policy) or lost.joins or lost.refused is not None:
            return None
        return TaskFailed(uuid=work.headers.id, exception=saferepr(ending_of(lost)[1]), traceback="")

    def revoked(self, headers: TaskHeaders, policy: Policy, *, expired: bool) -> None:
        """Tell that a task is not run because somebody has revoked it, or because it has expired."""
        if self.tells(policy):
            self.stream.tell(TaskRevoked(uuid=headers.id, expired=expired))

    def terminated(self, work: Work, signum: int) -> None:
        """Tell that a running task was ended."""
        if self.tells(work.policy):
            self.stream.tell(TaskRevoked(uuid=work.headers.id, terminated=True, signum=signum))

    def unknown(self, headers: TaskHeaders) -> None:
        """Tell that a task has failed that is not registered here."""
        if self.on:
            self.stream.tell(TaskFailed(uuid=headers.id, exception=f"NotRegistered({headers.task!r})"))


def _moment(text: str | None) -> str | None:
    """Return a header's time with its offset, as real Celery tells it."""
    if text is None:
        return None
    moment = datetime.datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).isoformat()


def _is_late(work: Work) -> bool:
    return work.policy.terms.acks_late
