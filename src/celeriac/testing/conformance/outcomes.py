"""Outcomes for the backend conformance suite."""

from __future__ import annotations

import uuid
from typing import Any

from celeriac import states
from celeriac.message import Outcome
from celeriac.ports import ResultBackend


def success(value: Any, **fields: Any) -> Outcome:  # Any: a task's value; fields of Outcome
    """Return the outcome of a task that returned the value."""
    fields.setdefault("id", str(uuid.uuid4()))
    fields.setdefault("date_done", "2026-11-20T23:12:48.280674+00:00")
    return Outcome(state=states.SUCCESS, result=value, **fields)


def failure(error: BaseException, **fields: Any) -> Outcome:  # Any: fields of Outcome
    """Return the outcome of a task that raised the error."""
    fields.setdefault("id", str(uuid.uuid4()))
    fields.setdefault("date_done", "2026-11-20T23:12:48.280674+00:00")
    return Outcome(state=states.FAILURE, result=error, **fields)


def store(client: ResultBackend, worker: ResultBackend, *outcomes: Outcome) -> None:
    """Store outcomes with the worker's backend, sent to where the client waits if it has such a place."""
    reply_to = client.reply_address()
    worker.store([worker.encode(o, reply_to=reply_to, correlation_id=o.id) for o in outcomes])
