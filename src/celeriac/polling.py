"""Chords on result stores that cannot count: a task looks at the header's results until all are there.

The task is Celery's ``celery.chord_unlock``, sent before the header, so that both kinds of worker can run it.
"""

from __future__ import annotations

from typing import Any

from celeriac import states
from celeriac.canvas import maybe_signature
from celeriac.context import allow_join_result
from celeriac.errors import ChordError
from celeriac.followup import chord_error, fail_chord, send_body
from celeriac.result import GroupResult, result_from_tuple

UNLOCK = "celery.chord_unlock"
_LONGEST_SECONDS = 86400.0  # to wait for a header whose results are kept for ever


def start_polling(app: Any, group_id: str, members: Any, body: Any) -> None:
    """Send the task that waits for the header of a chord.

    Args:
        app: The app.
        group_id: The header's id.
        members: The result of the header, as nested tuples.
        body: The chord's body, frozen; the task goes to the same queue.
    """
    route = {
        name: body.options[name] for name in ("queue", "exchange", "routing_key") if name in body.options
    }
    app.tasks[UNLOCK].apply_async(
        (group_id, body),
        {"interval": None, "max_retries": None, "result": members[1]},
        countdown=app.conf.result_chord_retry_interval,
        add_to_parent=False,
        **route,
    )


def unlock(
    task: Any,
    group_id: str,
    callback: Any,
    interval: float | None = None,
    max_retries: int | None = None,
    result: Any = None,
) -> None:
    """Apply the body of a chord if its header has ended, else look again later.

    It ends, whatever happens: when the results would be thrown away, or ``max_retries`` is reached, the chord
    has failed.

    Args:
        task: ``celery.chord_unlock``, running.
        group_id: The header's id.
        callback: The body.
        interval: Seconds until the next look; the setting's when None.
        max_retries: How often to look again; None: as long as results are kept.
        result: The result tuples of the header's members.
    """
    app = task.app
    header = GroupResult(group_id, [result_from_tuple(member, app) for member in result or ()], app=app)
    body = maybe_signature(callback, app=app, clone=True)
    wait = task.default_retry_delay if interval is None else interval
    if not header.ready():
        if _has_looked_enough(app, task.request.retries, wait, max_retries):
            missing = next(leaf.id for leaf in header.leaves() if not leaf.ready())
            fail_chord(app, body, ChordError(f"Dependency {missing} has not ended in time"))
            return
        raise task.retry(countdown=wait, max_retries=None)
    failed = next((leaf for leaf in header.leaves() if leaf.state in states.PROPAGATE_STATES), None)
    if failed is not None:
        fail_chord(app, body, chord_error(body, failed.id, failed.result))
        return
    try:
        with allow_join_result():
            values = header.join(timeout=app.conf.result_chord_join_timeout, propagate=True)
    except Exception as exc:  # noqa: BLE001 - whatever it is, those who wait for the body have to hear of it
        fail_chord(app, body, ChordError(f"The results of {group_id} cannot be joined: {exc!r}"))
        return
    send_body(app, group_id, body, values)


def _has_looked_enough(app: Any, looks: int, wait: float, most: int | None) -> bool:
    if most is not None:
        return looks >= most
    keep = app.conf.result_expires
    seconds = getattr(keep, "total_seconds", lambda: keep)() or _LONGEST_SECONDS
    return bool(looks * max(wait, 0.001) > seconds)
