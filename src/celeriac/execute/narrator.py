"""The log lines about tasks that have ended, in Celery's words: people's tools look for them."""

from __future__ import annotations

import logging
import sys
from typing import Any

from celeriac.context import Context
from celeriac.hooks import Hooks
from celeriac.run import Ending, ErrorInfo
from celeriac.saferepr import saferepr

logger: logging.Logger = logging.getLogger("celery.app.trace")  # APM packages filter by this name

_FAILED = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
_SHORT = "Task %(name)s[%(id)s] %(description)s"

# By kind: level, text, description, whether the traceback is shown
_LINES: dict[str, tuple[int, str, str, bool]] = {
    "failure": (logging.ERROR, _FAILED, "raised unexpected", True),
    "expected": (logging.INFO, _FAILED, "raised expected", False),
    "retry": (logging.INFO, "Task %(name)s[%(id)s] retry: %(exc)s", "", False),
    "ignore": (logging.INFO, _SHORT, "ignored", False),
    "reject": (logging.WARNING, "Task %(name)s[%(id)s] %(exc)s", "", True),
    "requeue": (logging.WARNING, "Task %(name)s[%(id)s] %(exc)s", "", True),
}


def tell(task: Any, request: Context, ending: Ending) -> None:  # Any: a Task of any parameters
    """Log how a run ended."""
    if ending.kind == "success":
        if logger.isEnabledFor(logging.INFO):
            shown = saferepr(ending.value, task.resultrepr_maxsize)
            facts = _facts(task, request, return_value=shown, runtime=ending.runtime)
            text = "Task %(name)s[%(id)s] succeeded in %(runtime)ss: %(return_value)s"
            logger.info(text, facts, extra={"data": facts})
        return
    kind = "expected" if ending.kind == "failure" and ending.expected else ending.kind
    level, text, description, shows_traceback = _LINES[kind]
    if not logger.isEnabledFor(level):
        return
    exc = ending.exception
    info = ending.einfo
    facts = _facts(
        task,
        request,
        description=description,
        exc=saferepr(exc) if ending.kind == "failure" else str(exc),
        traceback=info.traceback if info is not None else None,
        args=saferepr(request.args),
        kwargs=saferepr(request.kwargs),
        hostname=request.hostname,
        internal=False,
    )
    shown_info = (
        (type(exc), exc, info.tb) if shows_traceback and info is not None and exc is not None else None
    )
    logger.log(level, text, facts, exc_info=shown_info, extra={"data": facts})


def tell_internal_error(hooks: Hooks, task: Any, request: Context, exc: Exception) -> None:
    """Log and announce that something around a task has failed, not the task.

    To be called while the exception is handled.
    """
    info = ErrorInfo(internal=True)
    facts = _facts(task, request, description="INTERNAL ERROR", exc=saferepr(exc))
    logger.critical(_FAILED, facts, exc_info=sys.exc_info(), extra={"data": facts})
    hooks.task_internal_error.send(
        task,
        task_id=request.id,
        args=request.args,
        kwargs=request.kwargs,
        request=request,
        exception=exc,
        traceback=exc.__traceback__,
        einfo=info,
    )


def _facts(task: Any, request: Context, **more: Any) -> dict[str, Any]:
    return {"id": request.id, "name": request.shadow or task.name, **more}
