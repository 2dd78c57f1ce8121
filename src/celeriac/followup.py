"""What follows from the end of a run: callbacks, the next step of a chain, the part of a chord, errbacks.

Called by whoever has run a task for a message, while the task is still on the stack of running tasks: that
is where the messages sent here take their root and parent from.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from celeriac import states
from celeriac.canvas import Signature, group, maybe_signature
from celeriac.canvas.calls import calls_of, ends_of, units_of
from celeriac.clock import TextClock
from celeriac.context import Context
from celeriac.copies import mark, withdraw
from celeriac.errors import ChordError, EncodeError, NotRegistered, TransportError
from celeriac.message import Outcome, Part, Record
from celeriac.patience import insist, store
from celeriac.ports import ResultBackend
from celeriac.run import Ending
from celeriac.steps import Remainder

logger: logging.Logger = logging.getLogger(__name__)

# Larger ones would go through the node for nothing: what takes time then is not the round trip.
_LARGEST_PART_BYTES: Final = 4096

_clock = TextClock()


def conclude(app: Any, task: Any, request: Context, ending: Ending) -> tuple[Record | None, Part | None]:
    """Send what follows from an ending; return the record to store and the part of a chord to count, if any.

    What follows is sent in one round trip, and only when the result could be encoded. A part that the node
    cannot count is counted right here.

    Args:
        app: The app.
        task: The task that has run.
        request: The call it ran for.
        ending: How it ended.

    Raises:
        EncodeError: The result has no form in the result serializer; nothing was sent.
        TransportError: What follows could not be sent.
    """
    if ending.kind == "success":
        if request.callbacks or request._steps_to_come():
            with app.client.batch():
                _apply_callbacks(app, request, ending.value)
                _apply_next_step(app, request, ending.value)
                outcome = outcome_of(app, task, request, ending)
                record = _record(app, task, request, outcome)
        else:
            outcome = outcome_of(app, task, request, ending)
            record = _record(app, task, request, outcome)
        if request.chord is None:
            return record, None
        part = _part(app, request, outcome)
        if part is not None:
            return record, part
        if record is not None:
            # First, as in Celery: a body finds the results of its header, and who dies between the two leaves
            # behind what is to be counted.
            stored = record
            insist(f"The result of {outcome.id} cannot be stored", lambda: task.backend.store([stored]))
        count_chord_part(app, request.chord, request.group, request.group_index, outcome)
        return None, None
    if ending.kind in {"failure", "revoked"}:
        return fail(app, task, request, outcome_of(app, task, request, ending)), None
    if ending.kind == "retry":
        return _record(app, task, request, outcome_of(app, task, request, ending)), None
    if not request._passed_on and not (ending.kind == "requeue" and task.acks_late):
        _abandon(app, request, outcome_of(app, task, request, ending))
    return None, None


def fail(app: Any, task: Any, request: Context, outcome: Outcome) -> Record | None:
    """Do what follows from a failure (also one that no run has ended in, such as a lost worker).

    The remaining steps of the chain fail with the same exception, the chord counts it, errbacks are applied.

    Returns:
        The record to store; None when that was done here, before somebody could be told of the failure.
    """
    return _fail(app, request, outcome, _record(app, task, request, outcome))


def mourn(app: Any, task: Any, request: Context, outcome: Outcome) -> Record | None:
    """Do what follows from a loss: a failure, unless the part of a chord had ended before its worker died.

    Args:
        app: The app.
        task: The task that its worker died of.
        request: The call it ran for.
        outcome: The failure.

    Returns:
        As `fail`.
    """
    if request.chord is not None and (backend := app.backend) is not None:
        what = f"The result of {outcome.id} cannot be looked for"
        known = insist(what, lambda: backend.fetch([outcome.id])).get(outcome.id)
        if known is not None and known.state == states.SUCCESS:
            count_chord_part(app, request.chord, request.group, request.group_index, known)
            return None
    return fail(app, task, request, outcome)


def join(app: Any, request: Context) -> None:
    """Send the body of a chord that a part of it, which was counted by the node, has completed.

    Args:
        app: The app.
        request: The part's call; that its run was a success is all that has to be known of it here.
    """
    outcome = Outcome(id=request.id or "", state=states.SUCCESS)
    count_chord_part(app, request.chord or {}, request.group, request.group_index, outcome)


def fail_unregistered(app: Any, request: Context, error: BaseException) -> Record | None:
    """Do what follows from a call of a task that is not registered; returns as `fail`."""
    outcome = Outcome(
        id=request.id or "",
        state=states.FAILURE,
        result=error,
        children=[],
        date_done=app.now().isoformat(),
        group_id=request.group,
        parent_id=request.parent_id,
    )
    backend: ResultBackend | None = app.backend
    if backend is None:
        return None
    correlation_id = request.correlation_id or request.id
    return _fail(
        app,
        request,
        outcome,
        backend.encode(outcome, reply_to=request.reply_to, correlation_id=correlation_id),
    )


def _fail(
    app: Any, request: Context, outcome: Outcome, record: Record | None, *, once: bool = False
) -> Record | None:
    failed = outcome.state == states.FAILURE
    tail = [options for options in _chain_tail(request) if failed or options.get("chord")]
    errbacks = request.errbacks if failed else None
    backend: ResultBackend | None = app.backend
    if backend is not None and (tail or errbacks or request.chord is not None):
        # Whoever is told of the failure may look at once: it has to be there.
        ids = _never_run(request) if failed else [options["task_id"] for options in tail]
        outcomes = [msgspec.structs.replace(outcome, id=id) for id in ids]
        records = [backend.encode(o, reply_to=request.reply_to, correlation_id=o.id) for o in outcomes]
        records = [*([record] if record is not None else []), *records]
        insist(f"The failure of task {outcome.id} cannot be stored", lambda: backend.store(records))
        record = None
    if request.chord is not None:
        count_chord_part(app, request.chord, request.group, request.group_index, outcome)
    for options in tail:
        if options.get("chord"):
            part = msgspec.structs.replace(outcome, id=options["task_id"])
            group_id, index = options.get("group_id"), options.get("group_index")
            count_chord_part(app, options["chord"], group_id, index, part)
    if errbacks:
        apply_errbacks(app, request, errbacks, outcome, once=once)
    return record


def _abandon(app: Any, request: Context, outcome: Outcome) -> None:
    """End the chord of a task that was ignored or rejected and will never have a result; others stay so.

    Celery waits for ever for such a part. The task's own state is left alone: it may have set one itself.
    """
    if request.chord is None and not any(options.get("chord") for options in _chain_tail(request)):
        return
    revoked, backend = msgspec.structs.replace(outcome, state=states.REVOKED), app.backend
    record = None
    if backend is not None and not joins_chords(backend):  # who polls looks at nothing but its state
        known = backend.fetch([outcome.id]).get(outcome.id)
        if known is None or known.state not in states.READY_STATES:
            record = backend.encode(revoked, reply_to=request.reply_to, correlation_id=request.id)
    _fail(app, request, revoked, record)


def outcome_of(app: Any, task: Any, request: Context, ending: Ending) -> Outcome:
    """Return what is to be known of an ended run."""
    done = ending.state in states.READY_STATES
    return Outcome(
        id=request.id or "",
        state=ending.state,
        result=ending.value,
        traceback=ending.einfo.traceback if ending.einfo is not None else None,
        children=[child.as_tuple() for child in request._children or ()],
        date_done=_clock.now(app.timezone) if done else None,
        group_id=request.group,
        parent_id=request.parent_id,
        extended=extended(task, request) if app.conf.result_extended else None,
    )


def extended(task: Any, request: Context) -> dict[str, Any]:
    """Return what the setting ``result_extended`` adds to a result."""
    periodic = request.__dict__.get("periodic_task_name")  # a header of django-celery-beat, for its results
    return {
        "name": task.name,
        "args": request.args,
        "kwargs": request.kwargs,
        "worker": request.hostname,
        "retries": request.retries,
        "queue": (request.delivery_info or {}).get("routing_key"),
        **({"stamped_headers": request.stamped_headers} if request.stamped_headers else {}),
        **({"periodic_task_name": periodic} if periodic else {}),
        **(request.stamps or {}),
    }


def is_ignored(task: Any, request: Context) -> bool:
    """Return whether nobody wants the result: the sender's word counts before the task's."""
    said = request.__dict__.get("ignore_result")
    return bool(task.ignore_result if said is None else said)


def count_chord_part(
    app: Any, chord: Mapping[str, Any], group_id: str | None, index: int | None, outcome: Outcome
) -> None:
    """Note that a part of a chord has ended; apply the body when it was the last one.

    Args:
        app: The app.
        chord: The body, as in the message.
        group_id: The header's id.
        index: The part's place in the header.
        outcome: How the part ended.
    """
    backend: ResultBackend | None = app.backend
    if backend is None or not group_id:
        logger.error("Chord part %s cannot be counted: there is no result backend here.", outcome.id)
        return
    if not joins_chords(backend):
        return  # somebody polls for the results
    what = f"The part {outcome.id} of chord {group_id} cannot be counted"
    parts = insist(what, lambda: backend.chord_part(group_id, index, outcome))
    if parts is None:
        return
    body = maybe_signature(chord, app=app, clone=True)
    failed = next((part for part in parts if part.state in states.PROPAGATE_STATES), None)
    if failed is not None:
        fail_chord(app, body, chord_error(body, failed.id, failed.result))
    else:
        send_body(app, group_id, body, [part.result for part in parts])
    # Not before: should this process die, the part that comes again finds everything as it was.
    insist(f"Chord {group_id} cannot be ended", lambda: backend.end_chord(group_id))


def _part(app: Any, request: Context, outcome: Outcome) -> Part | None:
    """Return a success as a part that the node counts with many others; None: it is counted here."""
    encode = getattr(app.backend, "encode_part", None)
    if encode is None or not request.group:
        return None
    part: Part = encode(request.group, request.group_index, outcome)
    return part if len(part.payload) <= _LARGEST_PART_BYTES else None


def send_body(app: Any, group_id: str, body: Any, results: list[Any]) -> None:
    """Send the body of a chord, which may have been sent before; it is run once.

    Args:
        app: The app.
        group_id: The header's id.
        body: The body, frozen.
        results: Of the header.
    """
    try:
        mark(body, app.new_id(), occasion=group_id)
        body.apply_async((results,))
    except Exception as exc:  # noqa: BLE001 - whatever it is, those who wait for the body have to hear of it
        logger.error("The body of a chord cannot be sent: %r", exc)
        # After a timeout it may have arrived all the same, and be running.
        if body.subtask_type is not None or withdraw(app, body.options["task_id"], occasion=group_id):
            fail_chord(app, body, ChordError(f"Callback error: {exc!r}"))


def chord_error(body: Any, part_id: str, failure: Any) -> BaseException:
    """Return what the body of a chord fails with because of a part.

    It is a ChordError, which a result of the body shows when it is told not to follow its parents. The
    members of a group fail with the part's own error, as in Celery: the result of a group follows nobody.

    Args:
        body: The body.
        part_id: The part that has failed.
        failure: What it has failed with.
    """
    if isinstance(body, group) and isinstance(failure, BaseException):
        return failure
    return ChordError(f"Dependency {part_id} raised {failure!r}")


def fail_chord(app: Any, body: Any, error: BaseException) -> None:
    """Record that the body of a chord will never run, with all that would have followed it.

    It may be done twice, when the first who did it has died. Errbacks that are sent are run once even then;
    those that are called right here are called again.
    """
    _fail_inner_calls(app, body, error)
    for errbacks, ends in units_of(body):
        for end in ends:
            _fail_end(app, body, end.options, errbacks, error)
            errbacks = []  # each is applied once


def _fail_end(
    app: Any, body: Any, options: Mapping[str, Any], errbacks: list[Any], error: BaseException
) -> None:
    request = Context(
        task=body.task,
        id=options.get("task_id"),
        root_id=options.get("root_id"),
        errbacks=errbacks,
        chain=options.get("chain") or body.options.get("chain"),
        chord=options.get("chord"),
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        reply_to=options.get("reply_to"),
    )
    outcome = Outcome(
        id=request.id or "",
        state=states.FAILURE,
        result=error,
        children=[],
        date_done=app.now().isoformat(),
        group_id=request.group,
    )
    backend: ResultBackend = app.backend
    record = backend.encode(outcome, reply_to=request.reply_to, correlation_id=request.id)
    left = _fail(app, request, outcome, record, once=True)
    if left is not None:
        store(app, backend, [left])


def _fail_inner_calls(app: Any, body: Any, error: BaseException) -> None:
    """Record that what comes before the end of a body will never run either."""
    ends = {end.id for end in ends_of(body)}
    ids = [call.id for call in calls_of(body) if call.id and call.id not in ends]
    if ids:
        now = app.now().isoformat()
        outcomes = [
            Outcome(id=id, state=states.FAILURE, result=error, children=[], date_done=now) for id in ids
        ]
        backend: ResultBackend = app.backend
        store(app, backend, [backend.encode(outcome, correlation_id=outcome.id) for outcome in outcomes])


def apply_errbacks(
    app: Any, request: Context, errbacks: Iterable[Any], outcome: Outcome, *, once: bool = False
) -> None:
    """Apply the errbacks of a failed task.

    Those that take the request, the exception and the traceback are called right here; the others are sent,
    with the id of the failed task.

    Args:
        app: The app.
        request: The call that failed.
        errbacks: Signatures.
        outcome: The failure.
        once: Whether what is sent may have been sent before, for the same failure, and shall run once.
    """
    sent = []
    for position, errback in enumerate(errbacks):
        errback = maybe_signature(errback, app=app, clone=True)
        errback._app = app
        task = _local_task(errback)
        if task is not None and not errback.immutable and task.takes_error():
            try:
                errback(request, outcome.result, outcome.traceback)
            except Exception:  # wall: the user's code
                logger.exception("Errback %s of task %s raised", errback.task, request.id)
        else:
            if once and errback.subtask_type is None:
                errback.options.setdefault(
                    "task_id", f"{uuid.uuid5(uuid.NAMESPACE_OID, f'{request.id} {position}')}"
                )
                mark(errback, app.new_id())
            sent.append(errback)
    if sent:
        _send_errbacks(app, request, sent)


def _send_errbacks(app: Any, request: Context, errbacks: Sequence[Any]) -> None:
    """Send errbacks as the members of one group; one that cannot be sent does not keep back the others."""
    group_id, root = app.new_id(), request.root_id or request.id
    with app.client.batch():
        for index, errback in enumerate(errbacks):
            member = group([errback], app=app, group_index=index)
            try:
                member.apply_async((request.id,), task_id=group_id, parent_id=request.id, root_id=root)
            except TransportError:
                raise
            except Exception:  # its parameters, queue or options are the user's
                logger.exception("Errback %s of task %s cannot be sent", errback.task, request.id)


def _apply_callbacks(app: Any, request: Context, value: Any) -> None:
    callbacks = request.callbacks
    if not callbacks:
        return
    options = _lineage(app, request)
    plain = []
    for callback in callbacks:
        made = maybe_signature(callback, app=app, clone=True)
        if isinstance(made, group):
            made.apply_async((value,), **options)
        else:
            plain.append(made)
    if len(plain) > 1:
        group(plain, app=app).apply_async((value,), **options)
    elif plain:
        plain[0].apply_async((value,), **options)


def _apply_next_step(app: Any, request: Context, value: Any) -> None:
    waiting = request._steps_to_come()
    if waiting:
        rest: Sequence[Any]
        if isinstance(waiting, Remainder):
            following, rest = waiting
        else:
            *rest, following = waiting
        step = maybe_signature(following, app=app, clone=True)
        if type(step) is not Signature:
            rest = [*rest]  # it goes into other signatures, which are changed and copied
        step.apply_async((value,), chain=rest, **_lineage(app, request))


def joins_chords(backend: Any) -> bool:
    """Return whether a result store counts the parts of chords; one that does not say so does."""
    return bool(getattr(backend, "joins_chords", True))


def _lineage(app: Any, request: Context) -> dict[str, Any]:
    options = {"parent_id": request.id, "root_id": request.root_id or request.id}
    if app.conf.task_inherit_parent_priority:
        options["priority"] = (request.delivery_info or {}).get("priority")
    return options


def _chain_tail(request: Context) -> list[dict[str, Any]]:
    """Return the options of the calls whose results are those of steps that will never run."""
    steps = [maybe_signature(dict(step)) for step in request.chain or ()]
    return [end.options for step in steps for end in ends_of(step) if end.id]


def _never_run(request: Context) -> list[str]:
    """Return the ids of all calls in the steps that will never run: somebody may wait for any of them."""
    steps = [maybe_signature(dict(step)) for step in request.chain or ()]
    return [call.id for step in steps for call in calls_of(step) if call.id]


def _record(app: Any, task: Any, request: Context, outcome: Outcome) -> Record | None:
    backend: ResultBackend | None = task.backend
    if backend is None:
        return None
    polled = request.chord is not None and not joins_chords(backend)
    if (
        is_ignored(task, request)
        and not polled
        and not (outcome.state == states.FAILURE and task.store_errors_even_if_ignored)
    ):
        return None
    try:
        return backend.encode(
            outcome, reply_to=request.reply_to, correlation_id=request.correlation_id or request.id
        )
    except EncodeError as exc:
        what = type(outcome.result).__qualname__
        raise EncodeError(
            f"Task {task.name}[{request.id}] has returned a {what} that cannot be stored: {exc}. Return "
            "plain data, or set result_serializer or ignore_result."
        ) from exc


def _local_task(errback: Any) -> Any:
    try:
        return errback.type
    except NotRegistered:
        return None
