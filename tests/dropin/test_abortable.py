"""Tasks that can be asked to stop."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.contrib.abortable import AbortableAsyncResult, AbortableTask


def test_a_task_sees_that_it_was_asked_to_stop() -> None:
    app = Celery("app", broker="memory://abortable", result_backend="cache+memory://abortable")

    @app.task(base=AbortableTask, name="long")
    def declared() -> None: ...

    long: Any = app.tasks["long"]
    result: Any = long.delay()
    before = result.is_aborted(), long.is_aborted(task_id=result.id)

    result.abort()

    assert isinstance(result, AbortableAsyncResult)
    assert (before, result.is_aborted(), result.state) == ((False, False), True, "ABORTED")
    assert (long.is_aborted(task_id=result.id), long.is_aborted()) == (True, False)
    assert AbortableAsyncResult(result.id).is_aborted()
