"""The link to the broker: made, lost and made again, in Celery's words."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import msgspec

from celeriac.backoff import CONNECTION_INTERVALS, intervals
from celeriac.errors import TransportError
from celeriac.ports import Consumer, ConsumeSpec, Transport

logger: logging.Logger = logging.getLogger("celery.worker.consumer.consumer")
connection_logger: logging.Logger = logging.getLogger("celery.worker.consumer.connection")

R = TypeVar("R")


class GiveUp(Exception):
    """Raised when the broker is not going to be tried again."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How long a node tries to reach its broker."""

    retry: bool = True  # after the connection was lost
    retry_on_startup: bool = True
    max_retries: int | None = 100  # None or 0: for ever


class Link:
    """A node's consumer, and the patience to get it.

    1. connect, trying again with growing pauses
    2. after a loss, wait until the broker is back
    3. close

    Args:
        transport: The kind of broker and its address.
        spec: What to consume.
        policy: How long to try.
    """

    def __init__(self, transport: Transport, spec: ConsumeSpec, policy: RetryPolicy) -> None:
        self.transport = transport
        self._spec = spec
        self._policy = policy
        self._consumer: Consumer | None = None
        self._up = asyncio.Event()

    @property
    def consumer(self) -> Consumer:
        """The consumer; there is one as soon as `connect` has returned."""
        assert self._consumer is not None
        return self._consumer

    @property
    def connected(self) -> bool:
        """Whether there is a consumer at all."""
        return self._consumer is not None

    async def up(self) -> None:
        """Wait until the broker can be spoken to, as far as we know."""
        await self._up.wait()

    async def connect(self) -> None:
        """Get the consumer.

        Raises:
            GiveUp: It has been tried often enough, or trying again cannot help; the log says why.
        """

        async def attempt() -> Consumer:
            return await self.transport.consumer(self._spec)

        self._consumer = await self._until(attempt, may_retry=self._policy.retry_on_startup, startup=True)
        self._announce()

    async def lost(self, exc: TransportError) -> None:
        """Wait until the broker is back, after a call has failed.

        Raises:
            GiveUp: As for `connect`.
        """
        self._up.clear()
        logger.warning(
            "consumer: Connection to broker lost. Trying to re-establish the connection...", exc_info=exc
        )
        await self._until(self.consumer.renew, may_retry=self._policy.retry, startup=False)
        self._announce()

    async def close(self) -> None:
        """Hand back what was not started and let go of the connection."""
        if self._consumer is not None:
            await self._consumer.close()

    def _announce(self) -> None:
        self._up.set()
        connection_logger.info("Connected to %s", self.transport.address)

    async def _until(self, attempt: Callable[[], Awaitable[R]], *, may_retry: bool, startup: bool) -> R:
        for number, pause in self._pauses():
            try:
                return await attempt()
            except TransportError as exc:
                self._tell(exc, number, pause, may_retry=may_retry, startup=startup)
            await asyncio.sleep(pause)
        logger.critical(
            "consumer: Cannot connect to %s: tried %s times. Shutting down...",
            self.transport.address,
            self._policy.max_retries,
        )
        raise GiveUp

    def _pauses(self) -> Iterator[tuple[int, float]]:
        start, step, most = CONNECTION_INTERVALS
        pauses = enumerate(intervals(start, step, most), 1)
        return itertools.islice(pauses, self._policy.max_retries or None)

    def _tell(
        self, exc: TransportError, number: int, pause: float, *, may_retry: bool, startup: bool
    ) -> None:
        if not exc.retryable:
            logger.critical("Unrecoverable error: %r", exc)
            raise GiveUp from exc
        if not may_retry:
            setting = "broker_connection_retry_on_startup" if startup else "broker_connection_retry"
            logger.critical(
                "Retrying to %s has been disabled (app.conf.%s=False). Shutting down...",
                "establish a connection to the message broker"
                if startup
                else "re-establish a connection to the message broker after a connection loss",
                setting,
            )
            raise GiveUp from exc
        logger.error(
            "consumer: Cannot connect to %s: %s.\nTrying again in %.2f seconds... (%s/%s)\n",
            self.transport.address,
            str(exc).rstrip("."),
            pause,
            number,
            self._policy.max_retries or "∞",
        )
