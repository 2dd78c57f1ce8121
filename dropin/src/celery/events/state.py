"""What events have told: Celeriac's own classes."""

from __future__ import annotations

from celeriac.events.state import (
    HEARTBEAT_EXPIRE_WINDOW,
    TASK_EVENT_TO_STATE,
    CallableDefaultdict,
    State,
    Task,
    Worker,
    heartbeat_expires,
)

__all__ = (
    "HEARTBEAT_EXPIRE_WINDOW",
    "TASK_EVENT_TO_STATE",
    "CallableDefaultdict",
    "State",
    "Task",
    "Worker",
    "heartbeat_expires",
)
