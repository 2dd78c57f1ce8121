"""The link to the broker: made, lost and made again, in Celery's words."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import msgspec

from celeriac.backoff import CONNECTION_INTERVALS, intervals, left_of
from celeriac.errors import TransportError
from celeriac.pools.base import nothing
from celeriac.ports import Consumer, ConsumeSpec, Transport

logger: logging.Logger = logging.getLogger("celery.worker.consumer.consumer")
connection_logger: logging.Logger = logging.getLogger("celery.worker.consumer.connection")

R = TypeVar("R")

_LEAST_PAUSE_SECONDS = 0.5  # between two attempts, however long the first took
_SETTLED_SECONDS = 5.0  # a connection that lives for so long was a good one
_SURE = 0.8  # of a lease after its renewal: until then nobody can have taken it
_LOSS_SECONDS = (0.5, 1.0)  # the first pauses after a connection was lost, before those of the policy
_RELAPSE_SECONDS = (0.0, 0.5, 1.0)  # the first pauses before one is tried again that was none


class GiveUp(Exception):
    """Raised when the broker is not going to be tried again."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How long a node tries to reach its broker."""

    retry: bool = True  # after the connection was lost
    retry_on_startup: bool = True
    max_retries: int | None = 100  # None or 0: for ever
    retry_refusals: bool = False  # at the start, also when the broker says that trying again is no use
    intervals: tuple[float, float, float] = CONNECTION_INTERVALS  # seconds: first, step, most


class Link:
    """A node's consumer, and the patience to get it.

    1. connect, trying again with growing pauses
    2. after a loss, wait until the broker is back, whatever it says meanwhile: somebody may mend it
    3. keep a connection that is lost again and again from being made again and again at full speed
    4. know whether the leases are certainly ours
    5. close

    Args:
        transport: The kind of broker and its address.
        spec: What to consume.
        policy: How long to try.
        on_regained: Called when the leases were renewed after a time in which others may have taken them.
        narrow: Returns what to consume of the spec, asked before each attempt to connect.
    """

    def __init__(
        self,
        transport: Transport,
        spec: ConsumeSpec,
        policy: RetryPolicy,
        on_regained: Callable[[], None] = nothing,
        narrow: Callable[[ConsumeSpec], Awaitable[ConsumeSpec]] | None = None,
    ) -> None:
        self.transport = transport
        self._spec = spec
        self._policy = policy
        self._on_regained = on_regained
        self._narrow = narrow
        self._consumer: Consumer | None = None
        self._up = asyncio.Event()
        self._up_at = 0.0  # the loop's time
        self._renewed_at = 0.0  # the loop's time
        self._relapses: Iterator[float] = self._patience()
        self.renewals: int = 0
        self.losses: int = 0  # of the connection

    @property
    def consumer(self) -> Consumer:
        """The consumer; there is one as soon as `connect` has returned."""
        assert self._consumer is not None
        return self._consumer

    @property
    def connected(self) -> bool:
        """Whether there is a consumer at all."""
        return self._consumer is not None

    @property
    def sure(self) -> bool:
        """Whether nobody can have taken what we hold: false after a silence that looks like death."""
        if not self.transport.caps.leases:
            return True
        now = asyncio.get_running_loop().time()
        return now - self._renewed_at < _SURE * self._spec.lease_seconds

    async def renew(self) -> None:
        """Renew the leases.

        Raises:
            TransportError: The broker does not answer.
        """
        began = asyncio.get_running_loop().time()
        lapsed = not self.sure
        await self.consumer.renew()
        lapsed = lapsed or not self.sure  # it took so long that work was held back meanwhile
        self._renewed_at = began
        self.renewals += 1
        if lapsed:
            self._on_regained()

    @property
    def is_up(self) -> bool:
        """Whether the broker can be spoken to, as far as we know."""
        return self._up.is_set()

    async def up(self) -> None:
        """Wait until the broker can be spoken to, as far as we know."""
        await self._up.wait()

    async def connect(self) -> None:
        """Get the consumer.

        Raises:
            GiveUp: It has been tried often enough, or trying again cannot help; the log says why.
        """

        async def attempt() -> Consumer:
            spec = self._spec if self._narrow is None else await self._narrow(self._spec)
            began = asyncio.get_running_loop().time()
            consumer = await self.transport.consumer(spec)
            self._renewed_at = began
            return consumer

        self._consumer = await self._until(attempt, startup=True)
        self._announce()

    async def lost(self, exc: TransportError) -> None:
        """Wait until the broker is back, after a call has failed.

        Raises:
            GiveUp: It has been tried often enough, or shall not be tried again; the log says why.
        """
        self._up.clear()
        self.losses += 1
        logger.warning(
            "consumer: Connection to broker lost. Trying to re-establish the connection...", exc_info=exc
        )
        await asyncio.sleep(self._pause_of_relapse())
        await self._until(self.renew, startup=False)
        self._announce()

    async def close(self) -> None:
        """Hand back what was not started and let go of the connection."""
        if self._consumer is not None:
            await self._consumer.close()

    def _announce(self) -> None:
        self._up.set()
        self._up_at = asyncio.get_running_loop().time()
        connection_logger.info("Connected to %s", self.transport.address)

    def _pause_of_relapse(self) -> float:
        """Return the seconds to wait before a broker is bothered that took us back and failed us at once."""
        if asyncio.get_running_loop().time() - self._up_at >= _SETTLED_SECONDS:
            self._relapses = self._patience()
        return next(self._relapses)

    def _patience(self) -> Iterator[float]:
        return itertools.chain(_RELAPSE_SECONDS, intervals(*self._policy.intervals))

    async def _until(self, attempt: Callable[[], Awaitable[R]], *, startup: bool) -> R:
        clock = asyncio.get_running_loop().time
        for number, pause in self._pauses(startup=startup):
            began = clock()
            try:
                return await attempt()
            except TransportError as exc:
                # A hung broker has taken most of the pause already: it shall not be missed when it is back.
                pause = left_of(pause, clock() - began, least=_LEAST_PAUSE_SECONDS)
                self._tell(exc, number, pause, startup=startup)
            await asyncio.sleep(pause)
        logger.critical(
            "consumer: Cannot connect to %s: tried %s times. Shutting down...",
            self.transport.address,
            self._policy.max_retries,
        )
        raise GiveUp

    def _pauses(self, *, startup: bool) -> Iterator[tuple[int, float]]:
        pauses = intervals(*self._policy.intervals)
        if not startup:
            # Most losses are short: another master takes over, a server is restarted.
            pauses = itertools.chain(
                (min(pause, self._policy.intervals[0]) for pause in _LOSS_SECONDS), pauses
            )
        return itertools.islice(enumerate(pauses, 1), self._policy.max_retries or None)

    def _tell(self, exc: TransportError, number: int, pause: float, *, startup: bool) -> None:
        policy = self._policy
        # Once it has taken us, a refusal is a passing state: a password that is changed, a queue restored.
        if startup and not exc.retryable and not policy.retry_refusals:
            logger.critical("Unrecoverable error: %r", exc)
            raise GiveUp from exc
        if not (policy.retry_on_startup if startup else policy.retry):
            setting = "broker_connection_retry_on_startup" if startup else "broker_connection_retry"
            logger.error("consumer: Cannot connect to %s: %s", self.transport.address, exc)
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
            policy.max_retries or "∞",
        )
