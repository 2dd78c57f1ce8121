"""What the caller of a task that was not run to its end is told."""

from __future__ import annotations

from celeriac import states
from celeriac.errors import InvalidTaskError, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from celeriac.message import Lost


def ending_of(lost: Lost) -> tuple[str, Exception]:
    """Return the state and the error of a loss."""
    if lost.refused == "expired":
        return states.REVOKED, TaskRevokedError("expired")
    if lost.refused == "revoked" or lost.refused == "terminated":
        return states.REVOKED, TaskRevokedError(lost.refused)
    if lost.refused == "invalid":
        return states.FAILURE, InvalidTaskError(lost.reason)
    if lost.limit_seconds is not None:
        return states.FAILURE, TimeLimitExceeded(plain(lost.limit_seconds))
    return states.FAILURE, WorkerLostError(lost.reason)


def plain(seconds: float) -> float:
    """Return whole seconds as an int, as Celery tells limits."""
    return int(seconds) if seconds == int(seconds) else seconds
