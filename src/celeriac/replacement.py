"""Putting another task in the place of the one that runs: ``self.replace()``."""

from __future__ import annotations

from typing import Any

from celeriac.canvas import maybe_signature
from celeriac.canvas.calls import ends_of
from celeriac.canvas.chain import _chain
from celeriac.canvas.chord import _chord
from celeriac.canvas.joining import join_all
from celeriac.errors import ConfigError


def in_place_of(task: Any, sig: Any) -> Any:  # Any: a Task, whose module imports this one; signatures
    """Return the signature that takes over from a task's current call: its id, callbacks, chain and chord.

    Args:
        task: The task that runs.
        sig: What shall run instead; the result of a group is the list of its members' results.

    Raises:
        ConfigError: The signature belongs to a chord, or is an empty chain.
    """
    request, app = task.request, task._get_app()
    sig = sig.as_part()
    if not request.called_directly:
        request._passed_on = True
    if "chord" in sig.options:
        raise ConfigError("A signature that replaces a task must not be part of a chord.")
    if isinstance(sig, _chain) and not sig.tasks:
        raise ConfigError("A task cannot be replaced by an empty chain.")
    if isinstance(sig, _chain):
        sig = sig.clone()
        sig.tasks = sig.unrolled()
    if sig.ends_in_group:
        # One task has to end under the id that others wait for.
        sig |= app.tasks["celery.accumulate"].s(index=0)
    if not request.is_eager:  # where this run ends with the result of the other, and calls them itself
        for callback in request.callbacks or ():
            sig.link(callback)
        for errback in request.errbacks or ():
            sig.link_error(errback)
    if sig._app is None:
        sig._app = app
    if request.reply_to:
        sig.options["reply_to"] = request.reply_to  # over rpc:// its caller waits there, not at ours
    sig.freeze(request.id)
    _take_place(sig, request)
    for end in ends_of(sig):
        # It goes on under the id of this run, and has to be told from it: a node that knows that this one
        # has run would acknowledge the other's message unseen, if it comes again.
        end.set(replaced_task_nesting=request.replaced_task_nesting + 1)
    following = [maybe_signature(step, app=app) for step in reversed(request.chain or ())]
    return join_all(sig, following)


def _take_place(sig: Any, request: Any) -> None:
    """Put a signature where the call of a request is, among those around it."""
    sig.set(root_id=request.root_id, replaced_task_nesting=request.replaced_task_nesting + 1)
    if not (request.chain and isinstance(sig, (_chain, _chord))):
        # Otherwise the end of the chain would take them for its own, and be counted in another chord.
        sig.set(chord=request.chord, group_id=request.group, group_index=request.group_index)
