"""The shutdown: how a node ends, from somebody's asking for it to the last word to the broker."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Collection, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol

from celeriac.app import Celeriac
from celeriac.errors import TransportError
from celeriac.message import Requeue
from celeriac.node.last_words import write_obituaries
from celeriac.node.link import Link
from celeriac.node.loans import Loans
from celeriac.node.node_settings import NodeSettings
from celeriac.node.receive import Receiver
from celeriac.node.report import Reporter
from celeriac.node.work import Ledger
from celeriac.ports import Pool

logger: logging.Logger = logging.getLogger("celery.apps.worker")

How = Literal["warm", "cold"]

_LAST_WORDS_SECONDS = 2.0  # for what a cold shutdown still wants to tell broker and store
_WRITE_DOWN_SECONDS = 30.0  # for the same in a warm one, from when nothing runs any more
_UNSEEN_AT_ONCE = 1000
_UNSEEN_SECONDS = 0.05  # what is leased already comes at once; nothing else can come


class Closes(Protocol):
    """Something that has to say good-bye to the broker."""

    async def close(self) -> None:
        """Let go of what it has there."""
        ...


class Shutdown:
    """Ends a node when somebody asks for it.

    1. Hands back at once what has not begun, and what was fetched and not seen.
    2. Warm: waits until all that runs has ended and is written down, unless somebody is in a hurry.
    3. Cold: ends the slots, after a pause if so configured, and says what became of their tasks.
    4. Says good-bye.

    Args:
        app: The app.
        settings: The node's.
        pool: Runs the tasks.
        link: The connection to the broker.
        queues: The names of what is consumed.
        ledger: What was taken and is not settled.
        receiver: Fetches messages, and takes back what has not begun.
        reporter: Settles them.
        loans: What others' code has taken, and gives back.
        others: What else has something at the broker; closed in this order.
    """

    def __init__(
        self,
        app: Celeriac,
        settings: NodeSettings,
        pool: Pool,
        link: Link,
        queues: Collection[str],
        ledger: Ledger,
        receiver: Receiver,
        reporter: Reporter,
        loans: Loans,
        others: Sequence[Closes],
    ) -> None:
        self.how: How | None = None  # None: nobody has asked
        self._app = app
        self._settings = settings
        self._pool = pool
        self._link = link
        self._queues = queues
        self._ledger = ledger
        self._receiver = receiver
        self._reporter = reporter
        self._loans = loans
        self._others = others
        self._overdue = False  # a warm shutdown has taken too long
        self._changed = asyncio.Event()  # somebody has asked
        self._tasks: list[asyncio.Task[Any]] = []

    def ask(self, how: How) -> None:
        """Note that the node shall end; from any thread. `hurry` on the loop wakes whoever waits for that."""
        if how == "cold" or self.how is None:
            self.how = how

    def hurry(self) -> None:
        """Heed what was asked."""
        self._changed.set()

    async def unless_asked(self, work: Coroutine[Any, Any, None]) -> None:
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

    async def run(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        """Hand back what has not begun, see to what has, and leave.

        Args:
            tasks: The services that run, the receiver first.
        """
        how, self._tasks = self.how or "cold", [*tasks]
        before = self._reporter.returned
        await self._stop_receiving()
        self._hand_back()
        if how == "cold" or not await self._unless_hurried(self._end_gently()):
            await self._cold()
        if returned := self._reporter.returned - before:
            logger.warning("Restoring %s unacknowledged message(s)", returned)
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
            if self._link.connected:
                await self._hand_back_unseen()

    async def _hand_back_unseen(self) -> None:
        """Give back what the consumer has leased and the receiver has not seen any more.

        Without this it would wait for the last task to end. The queues are let go first, or the broker
        would hand us again what we give back.
        """
        consumer = self._link.consumer
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                for name in self._queues:
                    await consumer.cancel_queue(name)
                while True:
                    unseen = asyncio.create_task(consumer.receive(_UNSEEN_AT_ONCE))
                    done, _ = await asyncio.wait([unseen], timeout=_UNSEEN_SECONDS)
                    if not done:
                        unseen.cancel()
                        await asyncio.wait([unseen])
                        return
                    for delivery in unseen.result():
                        self._reporter.add(None, delivery, Requeue(untouched=True))
        except (TransportError, TimeoutError) as exc:
            logger.warning("What was fetched ahead goes back when the worker ends, not before: %r", exc)

    async def _unless_hurried(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do something until it is done, somebody is in a hurry or time is up; return whether it is done."""
        task = asyncio.create_task(work)
        loop, seconds = asyncio.get_running_loop(), self._settings.warm_shutdown_seconds
        end = loop.time() + (math.inf if seconds is None else seconds)
        while not task.done() and self.how != "cold":
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
        while self._link.connected:
            while len(self._ledger):
                await self._receiver.changed()
            await self._write_down()
            if not len(self._ledger):  # a part that was written down may have completed its chord
                break
        await self._pool.stop(graceful=True)

    async def _write_down(self) -> None:
        """Wait until all outcomes are stored and all messages settled, as long as there is hope."""
        try:
            async with asyncio.timeout(_WRITE_DOWN_SECONDS):
                await self._reporter.drain()
        except TimeoutError:
            logger.error(
                "Broker or result store did not take what became of %s messages within %g seconds, and the "
                "worker ends without telling them. Their tasks count as lost, or run again: %s",
                self._reporter.backlog,
                _WRITE_DOWN_SECONDS,
                ", ".join(self._reporter.backlog_ids()),
            )

    def _tell_overdue(self) -> None:
        self._overdue = True
        logger.warning(
            "The warm shutdown has not ended within the %g seconds of worker_shutdown_timeout: "
            "%s tasks that still run are stopped.",
            self._settings.warm_shutdown_seconds,
            len(self._ledger),
        )

    async def _cold(self) -> None:
        await self._soft_shutdown()
        say("worker: Cold shutdown (MainProcess)")
        self._reporter.closing = True
        await self._pool.stop(graceful=False)
        self._loans.abandon()
        if self._link.connected and self._tasks:
            try:
                async with asyncio.timeout(_LAST_WORDS_SECONDS):
                    await self._reporter.drain()
                    await write_obituaries(self._app, self._settings.hostname, self._reporter)
                    await self._reporter.drain()
            except TimeoutError:
                logger.error(
                    "%s tasks could not be settled in time; their leases will end.", self._reporter.backlog
                )

    async def _soft_shutdown(self) -> None:
        seconds = self._settings.soft_shutdown_seconds
        if seconds <= 0 or self._overdue or not (len(self._ledger) or self._settings.soft_shutdown_when_idle):
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
        for work in self._receiver.take_back():
            self._reporter.hand_back(work, Requeue(untouched=True))
        self._loans.close()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                for other in self._others:
                    await other.close()
                await self._link.close()
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
