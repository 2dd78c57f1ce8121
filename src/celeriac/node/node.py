"""The node: what a worker is, in one constructor."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from celeriac.app import Celeriac
from celeriac.clock import Clock, SystemClock
from celeriac.connections import connect_bursts, connect_locks, connect_permits
from celeriac.errors import CeleriacError
from celeriac.events.stream import EventStream
from celeriac.message import Requeue
from celeriac.node.autoscale import Autoscaler
from celeriac.node.dispatch import Dispatcher
from celeriac.node.heart import Heart
from celeriac.node.herald import Herald
from celeriac.node.intake import Intake
from celeriac.node.keeper import Keeper
from celeriac.node.leases import Leases
from celeriac.node.link import GiveUp, Link
from celeriac.node.loans import Loans
from celeriac.node.node_settings import NodeSettings
from celeriac.node.outage import Outage
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
from celeriac.node.shutdown import How, Shutdown
from celeriac.node.surplus import Surplus
from celeriac.node.touch import Touch
from celeriac.node.turnstiles import Turnstiles
from celeriac.node.watchdog import Stuck
from celeriac.node.work import Ledger, Work
from celeriac.ports import Pool, Transport
from celeriac.queues import Queue
from celeriac.tries import tries_from

logger: logging.Logger = logging.getLogger("celery.apps.worker")

EX_FAILURE = 1


class PoolBroken(CeleriacError):
    """Raised when the processes that run tasks are gone and cannot be replaced."""


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
    `loans`        what others' code has taken instead of having it run
    `keeper`       keeps and frees the locks of unique tasks
    `ledger`       everything that was taken and is not settled
    `revoked`      what somebody does not want to be run any more
    `revoker`      takes that back from wherever it waits, and ends it
    `reminder`     asks the broker for what was revoked while the node was not there
    `paused`       keeps it from queues that somebody has paused
    `shutdown`     ends all that, when somebody asks for it
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
        scribe = Scribe(self.link, app.backend, self.keeper, tries_from(app.conf))
        self.herald: Herald = Herald(EventStream(app, transport.fanout(), settings.hostname))
        self.reporter: Reporter = Reporter(
            scribe, self.ledger, self.dispatcher, results, self.herald, self.keeper, self._on_room
        )
        self.refusals: Refusals = Refusals(reception, results, self.ledger, self.reporter, self.herald)
        self.loans: Loans = Loans(self.ledger, self.dispatcher, self.reporter, self._on_release)
        self.intake: Intake = Intake(
            reception,
            self.ledger,
            self.dispatcher,
            self.reporter,
            self.refusals,
            self.herald,
            self.turnstiles,
            self.loans,
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
        self.shutdown: Shutdown = Shutdown(
            app,
            settings,
            pool,
            self.link,
            self.queues,
            self.ledger,
            self.receiver,
            self.reporter,
            self.loans,
            [self.turnstiles, self.keeper, self.intake.bursts],
        )
        self._started = False  # connected, and the slots are ready
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
        if self.reminder is not None:
            self.reminder.ask()  # who was stopped for so long may not have heard commands, either

    @property
    def unready(self) -> str | None:
        """Why the node takes no messages; None when it does."""
        if self.shutdown.how is not None:
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
        self.shutdown.ask(how)
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self.shutdown.hurry)

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
            await self.shutdown.unless_asked(self._start(on_ready))
            if self.shutdown.how is None:
                await self.shutdown.unless_asked(self._serve())
        except GiveUp:
            code = EX_FAILURE
        except Stuck as exc:
            logger.critical("%s", exc)
            code = EX_FAILURE
            self.shutdown.ask("warm")  # what runs has nothing to do with it
            self._tasks = [task for task in self._tasks if not task.done()]
        except Exception as exc:
            logger.critical("Unrecoverable error: %r", exc, exc_info=True)
            code = EX_FAILURE
        self.closing.set()
        await self.shutdown.run(self._tasks)
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
