"""The settings of events."""

from __future__ import annotations

from celeriac.errors import ConfigError
from celeriac.settings.settings import Settings
from celeriac.wire import event as wire


def terms_of(conf: Settings) -> wire.Terms:
    """Return how the exchange and the queues of events are declared.

    Raises:
        ConfigError: Queues cannot be both durable and exclusive.
    """
    if conf.event_queue_durable and conf.event_queue_exclusive:
        raise ConfigError(
            "event_queue_durable and event_queue_exclusive cannot both be set: a queue that belongs to one "
            "connection does not outlive it."
        )
    return wire.Terms(
        name=conf.event_exchange,
        prefix=conf.event_queue_prefix,
        ttl_seconds=conf.event_queue_ttl,
        expires_seconds=conf.event_queue_expires,
        durable=conf.event_queue_durable,
        exclusive=conf.event_queue_exclusive,
    )
