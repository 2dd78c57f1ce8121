"""How far a task has come: what it says of itself while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from celeriac.states import EXCEPTION_STATES, READY_STATES


class Progress(msgspec.Struct, frozen=True):
    """How far a task has come.

    Attributes:
        done: How much is done, in units of its own.
        total: How much there is in all; None when that is not known.
        message: What it is doing.
    """

    done: float
    total: float | None = None
    message: str = ""

    @property
    def fraction(self) -> float | None:
        """How much of it is done, from 0 to 1; None when the total is not known."""
        if not self.total:
            return None
        return min(max(self.done / self.total, 0.0), 1.0)

    def as_meta(self) -> dict[str, Any]:
        """Return what is stored, which Celery's clients read as ``result.info``."""
        return {"done": self.done, "total": self.total, "message": self.message}


class Update(msgspec.Struct, frozen=True):
    """What is known of a task at a moment.

    Attributes:
        state: Its state.
        value: What it has returned or raised, or what it says of itself while it runs.
        progress: How far it has come, when it says so.
    """

    state: str
    value: Any = None  # Any: the user's value
    progress: Progress | None = None

    @property
    def ready(self) -> bool:
        """Whether the state is final."""
        return self.state in READY_STATES

    @property
    def failed(self) -> bool:
        """Whether it has raised something, or was revoked: ``value`` is the exception."""
        return self.state in EXCEPTION_STATES


def progress_in(meta: Any) -> Progress | None:  # Any: what somebody gave to `update_state`
    """Return the progress that a custom state's meta tells of, or None when it does not.

    Celery's programs say ``current`` for what is done, as its guide does.
    """
    if not isinstance(meta, Mapping):
        return None
    done, total = meta.get("done", meta.get("current")), meta.get("total")
    message = meta.get("message", meta.get("status", ""))
    if not _is_number(done) or not (total is None or _is_number(total)):
        return None
    return Progress(done, total, message if isinstance(message, str) else repr(message))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
