"""The tasks that every app has: what canvas primitives send, and the upkeep of results."""

from __future__ import annotations

from typing import Any

from celeriac.canvas import chunks as chunks_of
from celeriac.canvas import maybe_signature, signature
from celeriac.polling import unlock


def add_standard_tasks(app: Any) -> None:  # Any: a Celeriac, whose module imports this one
    """Declare the tasks named ``celery.…`` in an app."""
    declare = app.declare
    declare(_backend_cleanup, name="celery.backend_cleanup", bind=True, ignore_result=True)
    declare(_accumulate, name="celery.accumulate", bind=True)
    declare(
        _chord_unlock,
        name="celery.chord_unlock",
        bind=True,
        ignore_result=True,
        max_retries=None,
        default_retry_delay=app.conf.result_chord_retry_interval,
        acks_late=True,  # a chord whose unlocking dies with its worker would never end
        reject_on_worker_lost=True,
    )
    declare(_map, name="celery.map", bind=True)
    declare(_starmap, name="celery.starmap", bind=True)
    declare(_chunks, name="celery.chunks", bind=True)
    declare(_group, name="celery.group", bind=True)
    declare(_chain, name="celery.chain", bind=True)
    declare(_chord, name="celery.chord", bind=True)


def _backend_cleanup(self: Any) -> None:
    if self.backend is not None:
        self.backend.cleanup()


def _accumulate(self: Any, *args: Any, **kwargs: Any) -> Any:
    index = kwargs.get("index")
    return args[index] if index is not None else args


def _map(self: Any, task: Any, it: Any) -> list[Any]:
    run = maybe_signature(task, app=self.app).type
    return [run(item) for item in it]


def _starmap(self: Any, task: Any, it: Any) -> list[Any]:
    run = maybe_signature(task, app=self.app).type
    return [run(*item) for item in it]


def _chunks(self: Any, task: Any, it: Any, n: int) -> Any:
    return chunks_of.apply_chunks(maybe_signature(task, app=self.app), it, n, app=self.app)


def _group(self: Any, tasks: Any, *args: Any, **kwargs: Any) -> Any:
    return _as_composite(self, "group", {"tasks": tasks}).apply_async(args).as_tuple()


def _chain(self: Any, *args: Any, **kwargs: Any) -> Any:
    return _as_composite(self, "chain", kwargs).apply_async(args).as_tuple()


def _chord(self: Any, header: Any, body: Any, *args: Any, **kwargs: Any) -> Any:
    return _as_composite(self, "chord", {"header": header, "body": body}).apply_async(args).as_tuple()


def _as_composite(self: Any, kind: str, fields: dict[str, Any]) -> Any:
    return signature(
        {
            "task": f"celery.{kind}",
            "args": (),
            "kwargs": fields,
            "options": {},
            "subtask_type": kind,
            "immutable": False,
        },
        app=self.app,
    )


def _chord_unlock(
    self: Any,
    group_id: str,
    callback: Any,
    interval: float | None = None,
    max_retries: int | None = None,
    result: Any = None,
    **_: Any,
) -> None:
    unlock(self, group_id, callback, interval, max_retries, result)
