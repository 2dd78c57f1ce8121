"""Running a task right here, without broker and worker: ``apply()`` and ``task_always_eager``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import CoroutineType
from typing import Any

from celeriac import ids
from celeriac.canvas.calls import units_of
from celeriac.canvas.signature import maybe_signature
from celeriac.context import Context, denied_join_result
from celeriac.errors import Retry
from celeriac.hooks import Hooks
from celeriac.message import Outcome
from celeriac.result import EagerResult
from celeriac.run import Ending, Runnable, run

_REQUEST_ONLY = (
    "logfile",
    "loglevel",
    "parent_id",
    "ignore_result",
    "shadow",
    "replaced_task_nesting",
)


class EagerStage:
    """The caller's own process as the place of a run.

    Args:
        app: The app.
    """

    def __init__(self, app: Any) -> None:  # Any: a Celeriac, whose module imports this one
        self.hooks: Hooks = app.hooks
        self.received: Any = None  # of a success: what a caller of a worker would have received
        self._app = app

    def started(self, task: Runnable, request: Context) -> None:
        """Note nothing: nobody can look."""

    def call(self, body: Callable[[], Any]) -> Any:
        """Call the body; a coroutine runs in an event loop of its own."""
        value = body()
        return drive(value) if isinstance(value, CoroutineType) else value

    def conclude(self, task: Runnable, request: Context, ending: Ending) -> None:
        """Run callbacks or errbacks right here, and store the result where ``store_eager_result`` says so."""
        if ending.kind == "success":
            self.received = ending.value
            if self._app.conf.task_eager_serializes and not request.ignore_result:
                self.received = _travelled(self._app, ending.value, self._app.conf.result_serializer)
        self._store(task, request, ending)
        if ending.kind == "success":
            for link in request.callbacks or ():
                maybe_signature(link, app=self._app).apply((ending.value,))
        elif ending.kind == "failure":
            for link in request.errbacks or ():
                text = ending.einfo.traceback if ending.einfo is not None else None
                _apply_errback(maybe_signature(link, app=self._app), request, ending.value, text)

    def internal_error(self, task: Runnable, request: Context, exc: Exception) -> None:
        """Raise it: here it meets whoever called."""
        raise exc

    def _store(self, task: Any, request: Context, ending: Ending) -> None:
        backend = task.backend if task.store_eager_result and not request.ignore_result else None
        if backend is None or ending.kind not in {"success", "failure"}:
            return
        outcome = Outcome(
            id=request.id or "",
            state=ending.state,
            result=ending.value,
            traceback=ending.einfo.traceback if ending.einfo is not None else None,
            children=[],
            date_done=self._app.now().isoformat(),
        )
        backend.store([backend.encode(outcome)])


def give_up(app: Any, body: Any, error: Exception) -> None:
    """Call the errbacks of a body that will never run; see `celeriac.canvas.sender.Sender.give_up_here`."""
    body = body.clone()
    body.freeze()  # which makes chords of what is one, as sending would
    for errbacks, ends in units_of(body):
        for end in ends[:1]:
            request = Context(task=end.task, id=end.id, root_id=end.id, errbacks=errbacks, is_eager=True)
            for errback in errbacks:
                _apply_errback(maybe_signature(errback, app=app), request, error, None)


def _apply_errback(errback: Any, request: Context, error: Any, traceback: str | None) -> None:
    if not errback.immutable and errback.type.takes_error():
        errback(request, error, traceback)
    else:
        errback.apply((request.id,))


def drive(coroutine: Any) -> Any:
    """Run a coroutine to its end and return what it returns, also inside a thread whose loop is running."""
    # Loaded here because asyncio costs 25 ms of every client's start and few run coroutines eagerly.
    return importlib.import_module("celeriac.awaiting").run(coroutine)


def apply(
    task: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    link: Any = None,
    link_error: Any = None,
    task_id: str | None = None,
    retries: int = 0,
    throw: bool | None = None,
    headers: Mapping[str, Any] | None = None,
    options: Mapping[str, Any],
) -> EagerResult[Any]:
    """Run a task right here and return its result; `celeriac.task.Task.apply` says what the arguments are."""
    app = task._get_app()
    task_id = task_id or app.new_id()
    if app.conf.task_eager_serializes:
        serializer = options.get("serializer") or task.serializer or app.conf.task_serializer
        args, kwargs = _travelled(app, (args, kwargs), serializer)
    if throw is None:
        throw = app.conf.task_eager_propagates
    request = Context(
        headers or {},
        id=task_id,
        task=task.name,
        args=args,
        kwargs=kwargs,
        root_id=options.get("root_id") or task_id,
        retries=retries,
        is_eager=True,
        called_directly=False,
        hostname=ids.hostname(),
        callbacks=_as_list(link),
        errbacks=_as_list(link_error),
        headers=dict(headers) if headers else None,
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        stamped_headers=options.get("stamped_headers"),
        stamps=_stamps(options) or None,
        delivery_info={
            "is_eager": True,
            "exchange": options.get("exchange"),
            "routing_key": options.get("routing_key"),
            "priority": options.get("priority"),
        },
        **{name: options[name] for name in _REQUEST_ONLY if options.get(name) is not None},
    )
    stage = EagerStage(app)
    ending = run(task, request, stage)
    if isinstance(ending.exception, Retry) and ending.exception.sig is not None:
        again = ending.exception.sig
        return again.apply(retries=retries + 1, throw=throw)  # type: ignore[no-any-return]
    if throw and ending.kind == "failure":
        raise ending.value
    text = ending.einfo.traceback if ending.einfo is not None else None
    value = stage.received if ending.kind == "success" else ending.returned
    return EagerResult(task_id, value, ending.state, traceback=text, name=task.name)


def apply_as_sent(
    task: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    link: Any,
    link_error: Any,
    task_id: str | None,
    options: dict[str, Any],
) -> EagerResult[Any]:
    """Run a task right here in place of sending it: its arguments go through the serializer all the same.

    Raises:
        EncodeError: An argument has no form in the serializer; sending would have failed too.
    """
    app = task._get_app()
    serializer = options.get("serializer") or app.conf.task_serializer
    args, kwargs = _travelled(app, (args, kwargs), serializer)
    with denied_join_result():
        result: EagerResult[Any] = task.apply(
            args, kwargs, task_id=task_id, link=link, link_error=link_error, **options
        )
    return result


def _travelled(app: Any, value: Any, serializer: str) -> Any:  # Any: the user's values
    """Return a value as a serializer brings it back.

    Raises:
        EncodeError: It has no form in the serializer.
    """
    content_type, encoding, data = app.codecs.encode(value, serializer)
    return app.codecs.decode(data, content_type, encoding, frozenset({content_type}))


def _stamps(options: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the stamps among options, as lists: so they are seen in Celery's eager mode, and only there."""
    return {name: _as_list(options.get(name)) or [] for name in options.get("stamped_headers") or ()}


def _as_list(value: Any) -> list[Any] | None:
    if value is None or isinstance(value, list):
        return value
    return list(value) if isinstance(value, tuple) else [value]
