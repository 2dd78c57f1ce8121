"""Tasks that look now and then whether they shall go on."""

from __future__ import annotations

from typing import Any

from celeriac.message import Outcome
from celery.app.task import Task
from celery.result import AsyncResult

__all__ = ("AbortableAsyncResult", "AbortableTask")

ABORTED = "ABORTED"


class AbortableAsyncResult(AsyncResult[Any]):
    """The result to come of a task that can be asked to stop."""

    def is_aborted(self) -> bool:
        """Return whether the task was asked to stop."""
        return self.state == ABORTED

    def abort(self) -> Any:
        """Ask the task to stop; it has to look for itself."""
        backend: Any = self.backend  # Any: the port, or what stands for none
        backend.store([backend.encode(Outcome(id=self.id, state=ABORTED, children=[]))])
        return None


class AbortableTask(Task[Any, Any]):
    """A task that looks now and then whether it shall go on: ``if self.is_aborted(): return``."""

    abstract = True

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AbortableAsyncResult:  # noqa: N802 - Celery's name
        """Return the result to come of a call."""
        return AbortableAsyncResult(task_id, app=self.app, **kwargs)

    def is_aborted(self, **kwargs: Any) -> bool:
        """Return whether the call that runs now was asked to stop.

        Args:
            **kwargs: ``task_id`` asks for another call.
        """
        task_id = kwargs.get("task_id", self.request.id)
        return task_id is not None and self.AsyncResult(task_id).is_aborted()
