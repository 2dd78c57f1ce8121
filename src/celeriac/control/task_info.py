"""What remote control tells of a task that a node has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from celeriac.app import Celeriac
from celeriac.errors import CeleriacError
from celeriac.message import Started
from celeriac.saferepr import saferepr
from celeriac.wire.task import unpack_call

if TYPE_CHECKING:
    from celeriac.node.work import Work

_READ_BYTES: Final = 65_536  # larger bodies are told as their sender has described them
_JSON: Final = frozenset({"application/json"})

TaskInfo = dict[str, Any]  # Any: text, numbers, and the arguments


def task_info(
    app: Celeriac, hostname: str, work: Work, started: Started | None = None, *, safe: bool = False
) -> TaskInfo:
    """Return what is told of a task.

    Its arguments are read from JSON only, which runs no code; of others the sender's text is told.

    Args:
        app: The app.
        hostname: The node's name.
        work: The task.
        started: When it runs.
        safe: Tell arguments as text.
    """
    delivery, headers = work.delivery, work.headers
    args, kwargs = _arguments(app, work)
    if safe:
        args = args if isinstance(args, str) else saferepr(tuple(args))
        kwargs = kwargs if isinstance(kwargs, str) else saferepr(kwargs)
    return {
        "id": headers.id,
        "name": headers.shadow or headers.task,
        "args": args,
        "kwargs": kwargs,
        "type": headers.task,
        "hostname": hostname,
        "time_start": None if started is None else started.at,
        "acknowledged": started is not None and not work.policy.terms.acks_late,
        "delivery_info": {
            "exchange": delivery.exchange,
            "routing_key": delivery.routing_key,
            "priority": delivery.envelope.properties.priority,
            "redelivered": delivery.redelivered,
        },
        "worker_pid": None if started is None else started.pid or os.getpid(),
    }


def _arguments(app: Celeriac, work: Work) -> tuple[Any, Any]:
    envelope, headers = work.delivery.envelope, work.headers
    if envelope.content_type in _JSON and len(envelope.body) <= _READ_BYTES:
        try:
            call = unpack_call(
                envelope.body,
                envelope.content_type,
                envelope.content_encoding,
                headers.compression,
                app.codecs,
                _JSON,
                _READ_BYTES,
            )
        except CeleriacError:
            pass  # the one who runs it will tell
        else:
            return list(call.args), call.kwargs
    return headers.argsrepr or "", headers.kwargsrepr or ""
