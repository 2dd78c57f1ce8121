"""Messages that may have been sent twice and are run once.

A worker that dies right after it was told to send the body of a chord has sent it or not; whoever takes over
cannot know, and sends it again, with the same id of the task. So each sending puts a word of its own into
the message's headers, a *copy*. The first copy that a worker begins to run claims the task at the result
store, and all others are acknowledged without being run. A copy that is delivered again may claim again.

A body that replaces itself by a chord has another body with its own id: a copy says of which chord it is.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from typing import Any, Final

from celeriac.patience import insist

logger: logging.Logger = logging.getLogger(__name__)

COPY_HEADER: Final = "celeriac_copy"
_SEPARATOR: Final = "/"
_FAILED: Final = "failed"  # the copy of whoever records that the task will never run


def mark(signature: Any, word: str, *, occasion: str = "") -> None:  # Any: a Signature
    """Make what is about to be sent one of several copies; its ids are fixed.

    Args:
        signature: Changed in place.
        word: That of this sending.
        occasion: What it is sent for, the same for all copies; messages with the same task id that are sent
            for something else are none of them.
    """
    copy = f"{occasion}{_SEPARATOR}{word}"
    for first in _sent_first(signature):
        first.options["headers"] = {**(first.options.get("headers") or {}), COPY_HEADER: copy}


def _sent_first(signature: Any) -> Iterator[Any]:
    """Yield the calls whose messages are sent when a signature is applied."""
    kind = signature.subtask_type
    if kind in {"chain", "group", "chord"}:
        members = list(getattr(signature.tasks, "tasks", signature.tasks))
        if kind == "chord" and not members:
            members = [signature.body]
        for member in members[:1] if kind == "chain" else members:
            yield from _sent_first(member)
    else:
        yield signature


def is_to_run(app: Any, task_id: str, copy: str) -> bool:  # Any: an app
    """Return whether a message is the copy of its task that is run; claims it."""
    backend = app.backend
    if backend is None or not hasattr(backend, "claim"):
        return True
    occasion = copy.rpartition(_SEPARATOR)[0]
    claimed = f"{uuid.uuid5(uuid.NAMESPACE_OID, f'{task_id} {occasion}')}" if occasion else task_id
    mine: bool = insist(f"Task {task_id} cannot be claimed", lambda: backend.claim(claimed, copy))
    if not mine:
        logger.info("Task %s was sent more than once; this copy is dropped.", task_id)
    return mine


def withdraw(app: Any, task_id: str, *, occasion: str = "") -> bool:  # Any: an app
    """Return whether no copy of a task has begun to run, and none will; see `mark`."""
    return is_to_run(app, task_id, f"{occasion}{_SEPARATOR}{_FAILED}")
