"""Functions of others' code in the node, called in a process of the pool."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celeriac.message import Finished, Job
from celeriac.saferepr import saferepr


def pack(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """Return a function and its arguments for `celeriac.message.Job.function`.

    Raises:
        Exception: One of them cannot be pickled.
    """
    return pickle.dumps((function, tuple(args), dict(kwargs)))


def unpack_value(finished: Finished) -> Any:  # Any: what the function has returned
    """Return what a function has returned."""
    return None if finished.value is None else pickle.loads(finished.value)  # our own child's


def call(job: Job) -> Finished:
    """Call the function of a job; what it raises, or what hinders it, ends up in the report."""
    assert job.function is not None
    began = time.perf_counter()
    finished = Finished(number=job.number, kind="success", record=None)
    try:
        # It comes from the node itself, over a socket that nobody else has; never from a message.
        function, args, kwargs = pickle.loads(job.function)
        finished.value = pickle.dumps(function(*args, **kwargs))
    except MemoryError:
        raise
    except Exception as exc:  # noqa: BLE001 - wall: nothing that a function does may end the child
        finished.kind = "failure"
        finished.exception_repr, finished.traceback = saferepr(exc), traceback.format_exc()
    finished.runtime = time.perf_counter() - began
    return finished
