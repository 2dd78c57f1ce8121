"""Calls the hooks of tasks' own classes of requests, in a thread beside the worker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from celeriac.execute.loss import ending_of, plain
from celeriac.message import Finished, Lost, Started
from celeriac.node.work import Work
from celery.exceptions import CeleryError, Reject, Retry, SoftTimeLimitExceeded
from celery.utils.imports import symbol_by_name
from celery.worker.request import ExceptionInfo, Message, Request

if TYPE_CHECKING:
    from celeriac.node.node import Node
    from celeriac.node.worker import Worker

# Any in this module: tasks, requests and exceptions of programs

__all__ = ("RequestHooks", "companion_of")

logger: logging.Logger = logging.getLogger("celery.worker.request")

_END_SECONDS: Final = 10.0  # for hooks to be called that the end finds waiting
_RAISED: Final = frozenset({"failure", "invalid", "retry", "reject", "requeue"})


class RequestHooks:
    """Calls the hooks; a `celeriac.node.companion.Companion` and a `celeriac.node.witness.Witness`.

    1. what the node's loop tells is put into a queue
    2. a thread makes the request when its task begins, and calls its hooks in the order of events

    Args:
        app: The app.
        hostname: The node's name.
        classes: By the names of tasks.
    """

    def __init__(self, app: Any, hostname: str, classes: dict[str, type[Request]]) -> None:
        self._app = app
        self._hostname = hostname
        self._classes = classes
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._requests: dict[int, Any] = {}  # by the number of the work, from its beginning to its end
        self._thread = threading.Thread(target=self._live, name="celeriac-request-hooks", daemon=True)

    # --- a companion -------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin: all is forked by now."""
        self._thread.start()

    def join(self, node: Node) -> None:
        """See what becomes of tasks from now on."""
        node.herald.witness = self

    def end(self, *, cold: bool) -> None:
        """Call what waits to be called, and end."""
        self._calls.put(None)
        self._thread.join(_END_SECONDS)

    # --- a witness, on the loop ---------------------------------------------------------------------------

    def minds(self, task: Any) -> bool:
        """Return whether a task has a class of its own."""
        return getattr(task, "name", None) in self._classes

    def started(self, work: Work, report: Started | Finished) -> None:
        """See `celeriac.node.witness.Witness`."""
        self._calls.put(partial(self._on_started, work, report))

    def ended(self, work: Work, report: Finished) -> None:
        """See `celeriac.node.witness.Witness`."""
        self._calls.put(partial(self._on_ended, work, report))

    def lost(self, work: Work, report: Lost) -> None:
        """See `celeriac.node.witness.Witness`."""
        self._calls.put(partial(self._on_lost, work, report))

    # --- in the thread -------------------------------------------------------------------------------------

    def _live(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:
                logger.exception("A hook of a task's own class of requests has failed.")

    def _request(self, work: Work) -> Any:
        request = self._requests.get(work.number)
        if request is None:
            task = work.policy.task
            request = self._requests[work.number] = self._classes[task.name](
                Message(work.delivery), hostname=self._hostname, app=self._app, task=task
            )
        return request

    def _on_started(self, work: Work, report: Started | Finished) -> None:
        at = report.at if isinstance(report, Started) else report.started_at
        self._request(work).on_accepted(report.pid, time.monotonic() - (time.time() - at))

    def _on_ended(self, work: Work, report: Finished) -> None:
        if work.number not in self._requests:  # it was over before anybody had seen it begin
            self._on_started(work, report)
        request = self._requests.pop(work.number)
        request.acknowledged = True
        if report.kind not in _RAISED:
            return
        exception = self._exception(work, report)
        if isinstance(exception, SoftTimeLimitExceeded):
            request.on_timeout(True, _limit(work, soft=True))
        request.on_failure(ExceptionInfo(exception, report.traceback), send_failed_event=True, return_ok=True)

    def _on_lost(self, work: Work, report: Lost) -> None:
        request = self._request(work)
        del self._requests[work.number]
        _, exception = ending_of(report)
        request.on_failure(ExceptionInfo(exception), send_failed_event=True, return_ok=False)
        if report.limit_seconds is not None:
            request.on_timeout(False, plain(report.limit_seconds))

    def _exception(self, work: Work, report: Finished) -> BaseException:
        """Return what a task has raised: as it was stored, or else by what its process has said of it."""
        shown = report.exception_repr or ""
        if report.kind in ("reject", "requeue"):
            return Reject(shown.partition(": ")[2] or shown, requeue=report.kind == "requeue")
        stored: Any = None
        if report.record is not None and self._app.backend.persistent:  # else its sender alone may read it
            try:
                stored = self._app.AsyncResult(work.headers.id).result
            except CeleryError as exc:
                logger.warning("What task %s has raised cannot be read: %s", work.headers.id, exc)
        if report.kind == "retry":
            return Retry(exc=stored if isinstance(stored, Exception) else None, message=shown)
        if isinstance(stored, BaseException):
            return stored
        name = shown.partition("(")[0]
        if name == SoftTimeLimitExceeded.__name__:
            return SoftTimeLimitExceeded()
        raised: type[Exception] = type(name if name.isidentifier() else "TaskFailed", (_NotStored,), {})
        return raised(shown)


class _NotStored(Exception):
    """An exception of a task that keeps no results: of its type only the name is known."""

    def __repr__(self) -> str:
        return str(self)


def _limit(work: Work, *, soft: bool) -> float:
    hard_seconds, soft_seconds = work.headers.timelimit or (None, None)
    of_call, of_task = (
        (soft_seconds, work.policy.soft_seconds) if soft else (hard_seconds, work.policy.hard_seconds)
    )
    return plain(of_call if of_call is not None else of_task or 0)


def companion_of(worker: Worker) -> RequestHooks | None:
    """Return what calls the hooks of a worker's tasks; None when no task has a class of its own.

    Raises:
        ImportError: A class cannot be imported.
    """
    found = {name: symbol_by_name(task.Request) for name, task in worker.app.tasks.items() if task.Request}
    classes = {name: made for name, made in found.items() if made is not Request}
    return RequestHooks(worker.app, worker.hostname, classes) if classes else None
