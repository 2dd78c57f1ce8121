"""Messages that may have been sent twice and are run once.

A worker that dies right after it was told to send the body of a chord has sent it or not; whoever takes over
cannot know, and sends it again, with the same id of the task. So each sending puts a word of its own into
the message's headers, a *copy*. The first copy that a worker begins to run claims the task at the result
store, and all others are acknowledged without being run. A copy that is delivered again may claim again.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from celeriac.patience import insist

logger = logging.getLogger(__name__)

COPY_HEADER: Final = "celeriac_copy"
_FAILED: Final = "failed"  # the copy of whoever records that the task will never run


def with_copy(signature: Any, copy: str) -> dict[str, Any]:  # Any: a Signature; options of `apply_async`
    """Return the options that send a signature, whose ids are fixed, as one of several copies.

    Args:
        signature: What is sent.
        copy: The word of this sending.
    """
    return {"headers": {**(signature.options.get("headers") or {}), COPY_HEADER: copy}}


def is_to_run(app: Any, task_id: str, copy: str) -> bool:  # Any: an app
    """Return whether a message is the copy of its task that is run; claims it."""
    backend = app.backend
    if backend is None or not hasattr(backend, "claim"):
        return True
    mine: bool = insist(f"Task {task_id} cannot be claimed", lambda: backend.claim(task_id, copy))
    if not mine:
        logger.info("Task %s was sent more than once; this copy is dropped.", task_id)
    return mine


def withdraw(app: Any, task_id: str) -> bool:  # Any: an app
    """Return whether no copy of a task has begun to run, and none will."""
    return is_to_run(app, task_id, _FAILED)
