"""Events on the wire: what they consist of, and where they go. Pure.

An event is a dict. Workers send those of tasks as lists, many in one message under the key ``task.multi``;
those of workers, and all that clients send, travel alone under a key of their own. Receivers take both forms
in any message.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from celeriac.errors import DecodeError
from celeriac.message import Broadcast, Envelope, Props
from celeriac.queues import Exchange, Queue

Event = dict[str, Any]  # Any: the values of fields

MULTI_KEY: Final = "task.multi"
TASK_GROUP: Final = "task"
WORKER_GROUP: Final = "worker"


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How the exchange and the queues of events are declared: the settings ``event_…``."""

    name: str = "celeryev"
    prefix: str = "celeryev"
    ttl_seconds: float | None = 5.0
    expires_seconds: float | None = 60.0
    durable: bool = False
    exclusive: bool = False

    @property
    def exchange(self) -> Exchange:
        """The exchange that events are sent to."""
        return Exchange(name=self.name, type="topic", durable=True)

    def queue(self, listener: str, routing_key: str = "#") -> Queue:
        """Return the queue in which somebody hears events.

        Args:
            listener: Tells it from others.
            routing_key: A topic pattern of types, with dots for dashes.
        """
        arguments = {
            argument: int(seconds * 1000)
            for argument, seconds in (
                ("x-message-ttl", self.ttl_seconds),
                ("x-expires", self.expires_seconds),
            )
            if seconds is not None
        }
        return Queue(
            name=f"{self.prefix}.{listener}",
            exchange=self.exchange,
            routing_key=routing_key,
            durable=self.durable,
            exclusive=self.exclusive,
            auto_delete=not self.durable,
            no_ack=True,
            arguments=arguments,
        )


def routing_key(kind: str) -> str:
    """Return the routing key of a type of event: ``worker-heartbeat`` goes under ``worker.heartbeat``."""
    return kind.replace("-", ".")


def group_of(kind: str) -> str:
    """Return the group of a type of event: what comes before the first dash."""
    return kind.partition("-")[0]


def utc_offset() -> int:
    """Return the offset of this machine's time in whole hours, as Celery tells it: UTC+2 is -2."""
    seconds = time.altzone if time.daylight and time.localtime().tm_isdst > 0 else time.timezone
    return seconds // 3600


def broadcast(
    encoded: tuple[str, str, bytes], exchange: Exchange, key: str, hostname: str, delivery_mode: int = 1
) -> Broadcast:
    """Return the message of events.

    Args:
        encoded: Content type, content encoding and body.
        exchange: Where events go.
        key: The routing key.
        hostname: Who sends them; real Celery's workers look for it in the headers.
        delivery_mode: 1 transient, 2 persistent.
    """
    content_type, encoding, body = encoded
    envelope = Envelope(
        headers={"hostname": hostname},
        body=body,
        content_type=content_type,
        content_encoding=encoding,
        properties=Props(delivery_mode=delivery_mode),
    )
    return Broadcast(envelope=envelope, exchange=exchange, routing_key=key)


def unpack(body: Any) -> list[Event]:  # Any: whatever somebody sent
    """Return the events in a message.

    Raises:
        DecodeError: It is no event and no list of events.
    """
    events: Sequence[Any] = body if isinstance(body, list) else [body]
    for event in events:
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise DecodeError(f"{type(event).__name__} without a type: it is no event")
    return list(events)
