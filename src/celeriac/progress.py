"""How far a task has come: what it says of itself while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


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
