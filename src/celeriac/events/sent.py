"""Telling monitors of calls that a client has sent: the setting ``task_send_sent_event``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from celeriac import ids
from celeriac.errors import CodecError, TransportError
from celeriac.events.dispatcher import EventDispatcher
from celeriac.message import Outgoing

logger: logging.Logger = logging.getLogger("celery.events")

_FROM_HEADERS: Final = ("root_id", "parent_id", "name", "args", "kwargs", "retries", "eta", "expires")
_LEAST_SECONDS: Final = 0.02  # a broker that is well answers in less
_HEADERS: Final = {"name": "task", "args": "argsrepr", "kwargs": "kwargsrepr"}


def tell_sent(app: Any, messages: Sequence[Outgoing], deadline: float) -> None:  # Any: a Celeriac
    """Send an event for each message; the tasks are sent, so that a failure here is only logged.

    Args:
        app: The app.
        messages: What the broker has taken.
        deadline: Seconds that it may take.
    """
    dispatcher = EventDispatcher(app=app, hostname=ids.origin(), buffer_while_offline=False)
    try:
        events = [("task-sent", fields_of(outgoing)) for outgoing in messages]
        dispatcher.send_many(events, deadline=max(_LEAST_SECONDS, deadline))
    except (TransportError, CodecError) as exc:
        logger.warning("Monitors do not hear of %s tasks that were sent: %s", len(messages), exc)


def fields_of(outgoing: Outgoing) -> dict[str, Any]:  # Any: values of headers
    """Return what is told of a message."""
    headers = outgoing.envelope.headers
    queue = outgoing.queue
    return {
        "uuid": headers.get("id"),
        **{field: headers.get(_HEADERS.get(field, field)) for field in _FROM_HEADERS},
        "queue": queue.name if queue is not None else outgoing.routing_key,
        "exchange": outgoing.exchange,
        "routing_key": outgoing.routing_key,
    }
