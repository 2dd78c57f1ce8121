"""Results that programs write themselves, under Celery's names."""

from __future__ import annotations

import datetime
from typing import Any

from celeriac.message import Outcome

# Any in this module: results, and requests of programs


class Marks:
    """Part of every backend."""

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Store what became of a call, and return the result.

        Args:
            task_id: Of the call.
            result: What it returns, or the exception.
            state: Its state.
            traceback: Of the exception.
            request: The call, which says where to send the result.
            **kwargs: Taken.
        """
        backend: Any = self  # the mixin is one by what it is mixed into
        outcome = Outcome(
            id=task_id,
            state=state,
            result=result,
            traceback=traceback,
            children=[],
            date_done=datetime.datetime.now(datetime.UTC).isoformat(),
            group_id=getattr(request, "group", None),
            parent_id=getattr(request, "parent_id", None),
        )
        record = backend.encode(
            outcome,
            reply_to=getattr(request, "reply_to", None),
            correlation_id=getattr(request, "correlation_id", None) or task_id,
        )
        backend.store([record])
        return result

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = "SUCCESS",
    ) -> None:
        """Store that a call has succeeded, unless its sender wants no result.

        Args:
            task_id: Of the call.
            result: What it returns.
            request: The call, see `store_result`.
            store_result: Whether to store it at all.
            state: Another state than SUCCESS.
        """
        if store_result and not getattr(request, "ignore_result", False):
            self.store_result(task_id, result, state, request=request)

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = "FAILURE",
    ) -> None:
        """Store that a call has failed; its error callbacks are not called.

        Args:
            task_id: Of the call.
            exc: Why.
            traceback: Where.
            request: The call, see `store_result`.
            store_result: Whether to store it at all.
            call_errbacks: Taken.
            state: Another state than FAILURE.
        """
        if store_result:
            self.store_result(task_id, exc, state, traceback=traceback, request=request)
