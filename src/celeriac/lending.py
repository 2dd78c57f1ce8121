"""The part of an app that lends kombu's connections and producers to the code of its users.

We do without kombu: what is lent comes from ``app.amqp``, which a distribution that has kombu provides.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

# Any in this module: objects of kombu


class Lending:
    """Something that lends connections to its broker; all of it is asked of its ``amqp``."""

    amqp: Any

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """Return a new connection to the broker that workers read from, not connected yet.

        Args:
            url: Another broker's URL.
            **options: As for ``kombu.Connection``.
        """
        return self.amqp.connection_for_read(url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """Return a new connection to the broker that tasks are sent to, not connected yet.

        Args:
            url: Another broker's URL.
            **options: As for ``kombu.Connection``.
        """
        return self.amqp.connection_for_write(url, **options)

    def connection(self, hostname: str | None = None, **options: Any) -> Any:
        """Return a new connection to the broker that tasks are sent to; see `connection_for_write`."""
        return self.connection_for_write(hostname, **options)

    broker_connection = connection

    def connection_or_acquire(self, connection: Any = None, pool: bool = True) -> AbstractContextManager[Any]:
        """Return a block with a connection: the given one, or one that is borrowed meanwhile.

        Args:
            connection: It, if there is one.
            pool: Borrow it from `pool`, instead of making a new one.
        """
        block: AbstractContextManager[Any] = self.amqp.connection_or_acquire(connection, pool)
        return block

    default_connection = connection_or_acquire

    def producer_or_acquire(self, producer: Any = None) -> AbstractContextManager[Any]:
        """Return a block with a producer: the given one, or one that is borrowed meanwhile."""
        block: AbstractContextManager[Any] = self.amqp.producer_or_acquire(producer)
        return block

    default_producer = producer_or_acquire

    @property
    def pool(self) -> Any:
        """The connections that are lent; at most ``broker_pool_limit``."""
        return self.amqp.connection_pool

    @property
    def producer_pool(self) -> Any:
        """The producers that are lent."""
        return self.amqp.producer_pool
