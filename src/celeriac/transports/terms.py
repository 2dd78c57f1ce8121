"""What a message's properties and its queue's arguments ask of a broker that keeps messages itself; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from celeriac.errors import TransportError
from celeriac.message import Envelope

HIGHEST_PRIORITY = 255  # as in AMQP


class Terms(msgspec.Struct, frozen=True):
    """How urgent a message is and how long it is worth having."""

    priority: int = 0
    expires_at: float | None = None  # epoch seconds

    def expired(self, now: float) -> bool:
        """Return whether nobody wants it any more."""
        return self.expires_at is not None and self.expires_at <= now


def terms_of(envelope: Envelope, arguments: Mapping[str, Any], now: float) -> Terms:
    """Return the terms of a message in a queue.

    A task that says itself when it expires does not expire here: the worker has to see it, or nobody would
    ever tell its caller that it was revoked.

    Args:
        envelope: The message.
        arguments: The queue's: ``x-max-priority`` and ``x-message-ttl`` (milliseconds) count.
        now: Epoch seconds.
    """
    highest = arguments.get("x-max-priority", HIGHEST_PRIORITY)
    priority = max(0, min(envelope.properties.priority or 0, highest))
    if envelope.properties.expiration is None and "x-message-ttl" not in arguments:
        return Terms(priority)
    if envelope.headers.get("expires") is not None:
        return Terms(priority)
    limits = [arguments.get("x-message-ttl"), envelope.properties.expiration]
    try:
        seconds = min(float(ms) / 1000 for ms in limits if ms is not None)
    except ValueError as exc:
        raise TransportError(f"Expiration {limits[1]!r} is not a number of ms.", retryable=False) from exc
    return Terms(priority, now + seconds)


def dead_letter_address(arguments: Mapping[str, Any], routing_key: str) -> tuple[str, str] | None:
    """Return exchange and routing key for rejected messages of a queue; None when it has no such exchange."""
    exchange = arguments.get("x-dead-letter-exchange")
    if exchange is None:
        return None
    return exchange, arguments.get("x-dead-letter-routing-key", routing_key)


def unroutable(exchange: str, routing_key: str, *, known: bool) -> TransportError:
    """Return the error for a message that no queue would get: a task must not vanish without a word."""
    if known:
        text = f"No queue is bound to exchange {exchange!r} for routing key {routing_key!r}"
    else:
        text = f"There is no exchange {exchange!r}: no queue that was declared here is bound to it"
    return TransportError(f"{text}; the message was not sent.", retryable=False)
