"""Making events, and the exchange that they go to."""

from __future__ import annotations

import time
from copy import copy
from typing import Any, Final

from kombu import Exchange

from celeriac.wire.event import group_of as group_from

__all__ = ("EVENT_EXCHANGE_NAME", "Event", "event_exchange", "get_exchange", "group_from")

EVENT_EXCHANGE_NAME: Final = "celeryev"
event_exchange: Any = Exchange(EVENT_EXCHANGE_NAME, type="topic")  # Any: kombu has no types


def Event(type: str, _fields: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:  # noqa: N802 - Celery's name
    """Return an event of a type and its fields, with the time."""
    event = {**(_fields or {}), **fields, "type": type}
    event.setdefault("timestamp", time.time())
    return event


def get_exchange(conn: Any, name: str = EVENT_EXCHANGE_NAME) -> Any:  # Any: kombu has no types
    """Return the exchange of events for a kombu connection."""
    exchange = copy(event_exchange)
    exchange.name = name
    if conn.transport.driver_type in {"redis", "gcpubsub"}:
        exchange.type = "fanout"
    return exchange
