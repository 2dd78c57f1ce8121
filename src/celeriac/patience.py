"""Calls to the result store: those that cannot be left out, and those that settings have tried again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from celeriac.backoff import intervals
from celeriac.errors import BackendGetMetaError, BackendStoreError, BackendUnreachable
from celeriac.message import Outcome, Record
from celeriac.ports import ResultBackend
from celeriac.tries import tries_from

logger: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")

_START_SECONDS, _STEP_SECONDS, _MOST_SECONDS = 0.2, 0.4, 3.0


def insist(doing: str, call: Callable[[], T]) -> T:
    """Return what a call returns, made again and again as long as the result store cannot be reached.

    A part of a chord that is given up is a chord that never ends, and its node could not store the result
    that the task has anyway: it takes no more messages until the store is back.

    Args:
        doing: What is being done and for whom, for the log.
        call: May be made any number of times.

    Raises:
        BackendError: The store answers, and refuses.
    """
    return _until_it_answers(doing, call, intervals(_START_SECONDS, _STEP_SECONDS, _MOST_SECONDS))


def store(app: Any, backend: ResultBackend, records: Sequence[Record]) -> None:  # Any: an app
    """Store results; when the store cannot be reached try again, as `result_backend_always_retry` says.

    Raises:
        BackendStoreError: It stayed away for all the tries.
        BackendUnreachable: It is away, and nothing is to be tried again.
    """
    tries = tries_from(app.conf) if app.conf.result_backend_always_retry else None
    if tries is None or not records:
        backend.store(records)
        return
    first = records[0]
    doing = f"The result of task {first.id} cannot be stored"
    try:
        _until_it_answers(doing, lambda: backend.store(records), tries.pauses())
    except BackendUnreachable as exc:
        text = f"failed to store result on the backend: {exc}"
        raise BackendStoreError(text, task_id=first.id, state=first.state) from exc


def fetch(app: Any, backend: ResultBackend, ids: Sequence[str]) -> dict[str, Outcome]:  # Any: an app, or None
    """Return what is known of the ids; when the store cannot be reached try again, as the setting says.

    Raises:
        BackendGetMetaError: It stayed away for all the tries.
        BackendUnreachable: It is away, and nothing is to be tried again.
    """
    tries = tries_from(app.conf) if app is not None and app.conf.result_backend_always_retry else None
    if tries is None or not ids:
        return backend.fetch(ids)
    doing = f"The result of task {ids[0]} cannot be read"
    try:
        return _until_it_answers(doing, lambda: backend.fetch(ids), tries.pauses())
    except BackendUnreachable as exc:
        raise BackendGetMetaError(f"failed to get meta: {exc}", task_id=ids[0]) from exc


def _until_it_answers(doing: str, call: Callable[[], T], pauses: Iterator[float]) -> T:
    for pause in pauses:
        try:
            return call()
        except BackendUnreachable as exc:
            logger.error("%s: %s Trying again in %.1f s.", doing, exc, pause)
            time.sleep(pause)
    return call()  # the last time
