"""The node: what a worker is, in one constructor."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Literal, Protocol

import msgspec

from celeriac.app import Celeriac
from celeriac.clock import Clock, SystemClock
from celeriac.connections import connect_bursts, connect_locks, connect_permits
from celeriac.errors import CeleriacError, TransportError
from celeriac.events.stream import EventStream
from celeriac.message import Requeue
from celeriac.node.autoscale import Autoscaler
from celeriac.node.dispatch import Dispatcher
from celeriac.node.heart import Heart
from celeriac.node.herald import Herald
from celeriac.node.intake import Intake
from celeriac.node.keeper import Keeper
from celeriac.node.last_words import write_obituaries
from celeriac.node.leases import Leases
from celeriac.node.link import GiveUp, Link, RetryPolicy
from celeriac.node.outage import Outage, OutagePolicy
from celeriac.node.paused import PausedQueues
from celeriac.node.policy import Policies
from celeriac.node.readahead import ReadAhead
from celeriac.node.receive import Receiver
from celeriac.node.reception import Reception
from celeriac.node.refusals import Refusals
from celeriac.node.reminder import Reminder
from celeriac.node.report import Reporter
from celeriac.node.results import Results
from celeriac.node.revoked import Revoked
from celeriac.node.revoker import Revoker
from celeriac.node.scribe import Scribe
from celeriac.node.surplus import Surplus
from celeriac.node.touch import Touch
from celeriac.node.turnstiles import Turnstiles
from celeriac.node.watchdog import Stuck
from celeriac.node.work import Ledger, Work
from celeriac.ports import ConsumeSpec, Pool, Transport
from celeriac.queues import Queue
from celeriac.revocations import KEPT_SECONDS

logger: logging.Logger = logging.getLogger("celery.apps.worker")

How = Literal["warm", "cold"]

_LAST_WORDS_SECONDS = 2.0  # for what a cold shutdown still wants to tell broker and store
_WRITE_DOWN_SECONDS = 30.0  # for the same in a warm one, from when nothing runs any more
_UNSEEN_AT_ONCE = 1000
_UNSEEN_SECONDS = 0.05  # what is leased already comes at once; nothing else can come
EX_FAILURE = 1


class PoolBroken(CeleriacError):
    """Raised when the processes that run tasks are gone and cannot be replaced."""


class NodeSettings(msgspec.Struct, kw_only=True, frozen=True):
    """What a node has to know besides the app's settings."""

    hostname: str
    spec: ConsumeSpec
    retry: RetryPolicy = RetryPolicy()
    outage: OutagePolicy = OutagePolicy()
    slots: int = 0  # that the prefetch was reckoned for
    fair: bool = False  # nobody has asked for a prefetch: nothing is held that cannot begin soon
    autoscale: tuple[int, int] | None = None  # slots: at most, at least
    time_limit: float | None = None  # seconds, for tasks with none of their own
    soft_time_limit: float | None = None
    soft_shutdown_seconds: float = 0.0  # before a cold shutdown, for running tasks to end
    soft_shutdown_when_idle: bool = False
    heartbeat_seconds: float | None = None  # between heartbeats; None: there are none
    revoked_seconds: float = KEPT_SECONDS  # for which it is remembered what was revoked
    warm_shutdown_seconds: float | None = None  # what runs longer than that is stopped; None: for ever
    measured: bool = False  # somebody wants to see figures of each kind of task


class Beside(Protocol):
    """Something that runs beside the work and is no part of it."""

    async def open(self) -> None:
        """Get ready, if that is possible now; never raises for a broker that is away."""
        ...

    async def run(self) -> None:
        """Go on until cancelled; never ends by itself."""
        ...


class Node:
    """One event loop that takes messages, has them run and settles them. It never runs user code.

    =============  ========================================================================
    `link`         the connection to the broker, made and made again
    `receiver`     fetches messages as long as there is room
    `intake`       admits, holds, parks or refuses them
    `dispatcher`   lines up what is admitted, and hands it to the pool
    `herald`       tells monitors what becomes of tasks, when they want that
    `heart`        tells them that the node is there
    `reporter`     stores outcomes and settles messages, in batches
    `leases`       keeps what was taken from being given to others
    `turnstiles`   let begin what is limited in the whole fleet
    `keeper`       keeps and frees the locks of unique tasks
    `ledger`       everything that was taken and is not settled
    `revoked`      what somebody does not want to be run any more
    `revoker`      takes that back from wherever it waits, and ends it
    `reminder`     asks the broker for what was revoked while the node was not there
    `paused`       keeps it from queues that somebody has paused
    =============  ========================================================================

    Args:
        app: The app, finalized.
        settings: What it consumes, and its limits.
        pool: Runs the tasks; opened before there was a loop.
        transport: The broker to consume from.
        clock: Says what time it is.
    """

    def __init__(
        self,
        app: Celeriac,
        settings: NodeSettings,
        pool: Pool,
        transport: Transport,
        clock: Clock | None = None,
    ) -> None:
        self.app = app
        self.settings = settings
        self.pool = pool
        self.policies: Policies = Policies(
            app, settings.time_limit, settings.soft_time_limit, tallies=settings.measured
        )
        self.ledger: Ledger = Ledger(self._on_closed)
        self.queues: dict[str, Queue] = {queue.name: queue for queue in settings.spec.queues}
        self.paused: PausedQueues = PausedQueues(
            transport.pauses(), self.queues, lambda: self.link.consumer, self._let_go
        )
        self.link: Link = Link(
            transport, settings.spec, settings.retry, self._on_regained, self.paused.narrow
        )
        results = Results(app)
        self.revoked: Revoked = Revoked(kept_seconds=settings.revoked_seconds)
        reception = Reception(
            app, settings.hostname, self.policies, self.revoked, self.paused.held, clock or SystemClock()
        )
        touch = Touch(self.link, self._on_touch)
        self.dispatcher: Dispatcher = Dispatcher(
            pool,
            settings.hostname,
            ReadAhead(settings.spec.prefetch, fair=settings.fair),
            self._still_wanted,
            touch.certain,
        )
        self.keeper: Keeper = Keeper(
            lambda: connect_locks(app.conf, transport, app_name=app.main),
            reception.clock,
            self._room,
            self._on_permit,
        )
        self.turnstiles: Turnstiles = Turnstiles(
            lambda: connect_permits(app.conf, transport, app_name=app.main),
            reception.clock,
            self._room,
            self.keeper,
            parks=transport.caps.native_delay,
        )
        scribe = Scribe(self.link, app.backend, self.keeper)
        self.herald: Herald = Herald(EventStream(app, transport.fanout(), settings.hostname))
        self.reporter: Reporter = Reporter(
            scribe, self.ledger, self.dispatcher, results, self.herald, self.keeper, self._on_room
        )
        self.refusals: Refusals = Refusals(reception, results, self.ledger, self.reporter, self.herald)
        self.intake: Intake = Intake(
            reception,
            self.ledger,
            self.dispatcher,
            self.reporter,
            self.refusals,
            self.herald,
            self.turnstiles,
            lambda: connect_bursts(app.conf, transport, app_name=app.main),
            parks=transport.caps.native_delay,
            on_release=self._on_release,
        )
        self.revoker: Revoker = Revoker(self.ledger, self.dispatcher, self.intake, self.refusals, pool)
        self.reminder: Reminder | None = None
        if transport.caps.revocations:
            self.reminder = Reminder(
                transport.revocations(), self.revoked, self.revoker, settings.revoked_seconds
            )
        outage = Outage(settings.outage, pool, self.ledger, self.dispatcher)
        self.receiver: Receiver = Receiver(
            self.link, pool, self.ledger, self.dispatcher, self.reporter, self.intake, outage
        )
        self.leases: Leases = Leases(self.link, settings.spec.lease_seconds)
        self.born: float = time.monotonic()
        self.heart: Heart = Heart(
            app, settings.hostname, self.herald.stream, self, settings.heartbeat_seconds
        )
        self.autoscaler: Autoscaler | None = None
        if settings.autoscale is not None:
            most, fewest = settings.autoscale
            self.autoscaler = Autoscaler(pool, self.dispatcher, most, fewest, self._on_room)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: How | None = None
        self._started = False  # connected, and the slots are ready
        self._overdue = False  # a warm shutdown has taken too long
        self._changed = asyncio.Event()  # somebody has asked to stop
        self.closing: asyncio.Event = asyncio.Event()  # it takes no more, and goes on until all is done
        self._tasks: list[asyncio.Task[Any]] = []
        self._beside: dict[str, Beside] = {}
        self.run_beside("paused queues", self.paused)
        if settings.fair:
            self.run_beside("surplus", Surplus(pool, self.dispatcher, self.receiver, self.reporter))
        if self.autoscaler is not None:
            self.run_beside("autoscaler", self.autoscaler)

    def run_beside(self, name: str, service: Beside) -> None:
        """Have something run as long as the node takes and runs messages.

        Args:
            name: For people who look at tasks of the event loop.
            service: Opened before the node is ready, and run until all work is done.
        """
        self._beside[name] = service

    def doing(self) -> tuple[int, int]:
        """Return how many tasks run now, and how many have ended."""
        return len(self.pool.running()), sum(self.policies.counts().values())

    def resize_pool(self, by: int) -> None:
        """Have so many more slots, or fewer.

        Raises:
            ValueError: The pool cannot do that, or none would be left.
        """
        pool, before = self.pool, self.pool.size
        if before + by < 1:
            raise ValueError(f"The pool has {before} slots; it cannot have {before + by}.")
        pool.resize(before + by)
        multiplier = self.settings.spec.prefetch / (self.settings.slots or before)
        self.dispatcher.rebase(round(pool.size * multiplier))
        self.dispatcher.pump()
        self._on_room()

    def _still_wanted(self, work: Work) -> bool:
        return work.lost is not None or self.intake.still_wanted(work)

    def _on_room(self) -> None:
        self.receiver.on_room()
        self.turnstiles.on_room()

    def _room(self) -> int:
        return self.pool.free(short=False) - self.dispatcher.waiting()

    def _on_closed(self, work: Work) -> None:
        self.turnstiles.over(work)
        self.keeper.over(work)

    def _on_permit(self, work: Work) -> None:
        self.dispatcher.add(work)
        self.dispatcher.pump()
        self._on_release()

    def _on_release(self) -> None:
        self.receiver.on_release()

    def _let_go(self) -> None:
        """Give back what waits here of queues that were paused."""
        for work in self.revoker.take_back(lambda work: work.delivery.queue in self.paused.held):
            self.reporter.hand_back(work, Requeue(untouched=True))

    def _on_touch(self) -> None:
        self.dispatcher.pump()

    def _on_regained(self) -> None:
        self.receiver.sort_out()

    @property
    def unready(self) -> str | None:
        """Why the node takes no messages; None when it does."""
        if self._asked is not None:
            return "It is shutting down."
        if not self._started:
            return "It is starting."
        return None if self.link.is_up else f"The broker at {self.link.transport.address} is away."

    @property
    def hostname(self) -> str:
        """The node's name."""
        return self.settings.hostname

    # --- from other threads and signal handlers --------------------------------------------------------

    def stop(self, how: How) -> None:
        """Ask the node to stop; may be called from any thread and at any time, a second time to hurry."""
        if how == "cold" or self._asked is None:
            self._asked = how
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._changed.set)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it runs on; there is one as soon as it runs."""
        assert self._loop is not None
        return self._loop

    def post(self, call: Callable[[], object]) -> None:
        """Have something called on the node's loop; may be called from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(call)

    # --- the life of a node ----------------------------------------------------------------------------

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> int:
        """Work until told to stop and return the exit code: 0, or 1 when it could not go on.

        Args:
            on_ready: Called when the broker is connected and the slots are ready.
        """
        self._loop = asyncio.get_running_loop()
        code = 0
        try:
            await self._until_stopped(self._start(on_ready))
            if self._asked is None:
                await self._until_stopped(self._serve())
        except GiveUp:
            code = EX_FAILURE
        except Stuck as exc:
            logger.critical("%s", exc)
            code = EX_FAILURE
            self._asked = self._asked or "warm"  # what runs has nothing to do with it
            self._tasks = [task for task in self._tasks if not task.done()]
        except Exception as exc:
            logger.critical("Unrecoverable error: %r", exc, exc_info=True)
            code = EX_FAILURE
        await self._wind_down(self._asked or "cold")
        return code

    async def _start(self, on_ready: Callable[[], None]) -> None:
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self.pool.start(self.reporter.take))
                both.create_task(self.link.connect())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # one has failed, and the other was cancelled for it
        for service in self._beside.values():
            await service.open()
        self._started = True
        on_ready()

    async def _serve(self) -> None:
        """Keep the services running; ends only with an error."""
        self._tasks = [
            asyncio.create_task(service, name=name)
            for name, service in (
                ("receiver", self.receiver.run()),  # first: it is the first to be stopped
                ("reporter", self.reporter.run()),
                ("leases", self.leases.run()),
                ("permits", self.turnstiles.run()),
                ("locks", self.keeper.run()),
                ("bursts", self.intake.bursts.run()),
                ("pool", self._watch_pool()),
                *((name, service.run()) for name, service in self._beside.items()),
            )
        ]
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _watch_pool(self) -> None:
        await self.pool.broken()
        raise PoolBroken("The pool cannot run tasks any more.")

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something until it is done or somebody asks to stop."""
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if task.done():
            task.result()
        else:
            task.cancel()
            await asyncio.wait([task])

    # --- the end -----------------------------------------------------------------------------------------

    async def _wind_down(self, how: How) -> None:
        """Hand back what has not begun, see to what has, and leave."""
        before = self.reporter.returned
        self.closing.set()
        await self._stop_receiving()
        self._hand_back()
        if how == "cold" or not await self._unless_hurried(self._end_gently()):
            await self._cold()
        if returned := self.reporter.returned - before:
            logger.info("Restoring %s unacknowledged message(s)", returned)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._leave()

    async def _stop_receiving(self) -> None:
        if self._tasks:
            receiver, *self._tasks = self._tasks
            receiver.cancel()
            await asyncio.wait([receiver])
            if self.link.connected:
                await self._hand_back_unseen()

    async def _hand_back_unseen(self) -> None:
        """Give back what the consumer has leased and the receiver has not seen any more.

        Without this it would wait for the last task to end. The queues are let go first, or the broker
        would hand us again what we give back.
        """
        consumer = self.link.consumer
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                for name in self.queues:
                    await consumer.cancel_queue(name)
                while True:
                    unseen = asyncio.create_task(consumer.receive(_UNSEEN_AT_ONCE))
                    done, _ = await asyncio.wait([unseen], timeout=_UNSEEN_SECONDS)
                    if not done:
                        unseen.cancel()
                        await asyncio.wait([unseen])
                        return
                    for delivery in unseen.result():
                        self.reporter.add(None, delivery, Requeue(untouched=True))
        except (TransportError, TimeoutError) as exc:
            logger.warning("What was fetched ahead goes back when the worker ends, not before: %r", exc)

    async def _unless_hurried(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do something until it is done, somebody is in a hurry or time is up; return whether it is done."""
        task = asyncio.create_task(work)
        loop, seconds = asyncio.get_running_loop(), self.settings.warm_shutdown_seconds
        end = loop.time() + (math.inf if seconds is None else seconds)
        while not task.done() and self._asked != "cold":
            self._changed.clear()
            hurry = asyncio.create_task(self._changed.wait())
            left = None if seconds is None else max(0.0, end - loop.time())
            done, _ = await asyncio.wait(
                [task, hurry, *self._tasks], timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            hurry.cancel()
            if not done:
                self._tell_overdue()
                break
            if done - {task, hurry}:
                break  # a service has ended, and with it the hope that this comes to an end
        if task.done():
            task.result()
            return True
        task.cancel()
        await asyncio.wait([task])
        return False

    async def _end_gently(self) -> None:
        """Wait until all that runs has ended and is written down, then for the slots to end."""
        while self.link.connected:
            while len(self.ledger):
                await self.receiver.changed()
            await self._write_down()
            if not len(self.ledger):  # a part that was written down may have completed its chord
                break
        await self.pool.stop(graceful=True)

    async def _write_down(self) -> None:
        """Wait until all outcomes are stored and all messages settled, as long as there is hope."""
        try:
            async with asyncio.timeout(_WRITE_DOWN_SECONDS):
                await self.reporter.drain()
        except TimeoutError:
            logger.error(
                "Broker or result store did not take what became of %s messages within %g seconds, and the "
                "worker ends without telling them. Their tasks count as lost, or run again: %s",
                self.reporter.backlog,
                _WRITE_DOWN_SECONDS,
                ", ".join(self.reporter.backlog_ids()),
            )

    def _tell_overdue(self) -> None:
        self._overdue = True
        logger.warning(
            "The warm shutdown has not ended within the %g seconds of worker_shutdown_timeout: "
            "%s tasks that still run are stopped.",
            self.settings.warm_shutdown_seconds,
            len(self.ledger),
        )

    async def _cold(self) -> None:
        await self._soft_shutdown()
        say("worker: Cold shutdown (MainProcess)")
        self.reporter.closing = True
        await self.pool.stop(graceful=False)
        if self.link.connected and self._tasks:
            try:
                async with asyncio.timeout(_LAST_WORDS_SECONDS):
                    await self.reporter.drain()
                    await write_obituaries(self.app, self.settings.hostname, self.reporter)
                    await self.reporter.drain()
            except TimeoutError:
                logger.error(
                    "%s tasks could not be settled in time; their leases will end.", self.reporter.backlog
                )

    async def _soft_shutdown(self) -> None:
        seconds = self.settings.soft_shutdown_seconds
        if seconds <= 0 or self._overdue or not (len(self.ledger) or self.settings.soft_shutdown_when_idle):
            return
        logger.warning("Initiating Soft Shutdown, terminating in %g seconds", seconds)
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()  # somebody is in an even greater hurry
        except TimeoutError:
            return
        say("Waiting gracefully for cold shutdown to complete...")

    def _hand_back(self) -> None:
        """Give what has not begun to other workers at once."""
        for work in self.receiver.take_back():
            self.reporter.hand_back(work, Requeue(untouched=True))

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self.turnstiles.close()
                await self.keeper.close()
                await self.intake.bursts.close()
                await self.link.close()
        except (TransportError, TimeoutError) as exc:
            logger.warning("The broker did not let us say good-bye: %r", exc)


def say(text: str) -> None:
    """Write to standard output, as Celery does when signals are about: past the log and its level."""
    stream = sys.__stdout__
    if stream is not None:
        # Whoever read it may be gone, and the signal shall be obeyed all the same.
        with suppress(OSError, ValueError):
            stream.write(f"\n{text}\n")
            stream.flush()
