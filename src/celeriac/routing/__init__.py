"""Queues and routes: where a task message goes, and what a worker consumes from."""

from __future__ import annotations

from celeriac.routing.queues import broadcast_queue, exchange_from, is_broadcast, queue_from
from celeriac.routing.router import Route, Router

__all__ = ["Route", "Router", "broadcast_queue", "exchange_from", "is_broadcast", "queue_from"]
