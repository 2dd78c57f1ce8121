"""Adding a part to the chord that a task belongs to, while it runs: ``self.add_to_chord()``."""

from __future__ import annotations

import uuid
from typing import Any

from celeriac.canvas.calls import ends_of
from celeriac.errors import ChordsUnsupported


def place_beside(task: Any, sig: Any) -> None:  # Any: a Task, whose module imports this one; a signature
    """Make a signature one more part of the chord of a task's current call; its body waits for it from now.

    A task whose worker has died and that is run again gives what it adds the same ids, and it counts once;
    the next try of a task that retries adds anew.

    Args:
        task: The task that runs.
        sig: Changed in place: it stands where the task stands in the header, and still has to be sent.

    Raises:
        ValueError: The task is not a part of a chord.
        ChordsUnsupported: The result store cannot let a chord grow.
    """
    request, app = task.request, task._get_app()
    if not request.chord:
        raise ValueError("Current task is not member of any chord: there is none to add to.")
    grow = getattr(app.backend, "grow_chord", None)
    if grow is None or not getattr(app.backend, "joins_chords", True):
        raise ChordsUnsupported(
            f"Task {task.name} cannot add to its chord: this result store cannot let a chord grow. Set "
            "result_backend to another one, or send a group from the body of the chord."
        )
    if sig._app is None:
        sig._app = app
    ends = list(ends_of(sig))
    for end in ends:
        name = f"{request.id} {request.retries} {request._added} {end.task}"
        end.options.setdefault("task_id", f"{uuid.uuid5(uuid.NAMESPACE_OID, name)}")
        request._added += 1
    sig.freeze(
        group_id=request.group,
        group_index=request.group_index,
        chord=request.chord,
        root_id=request.root_id,
    )
    grow(request.group, [end.id for end in ends])
