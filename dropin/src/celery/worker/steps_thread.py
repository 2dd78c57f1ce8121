"""The thread in which the steps of a consumer live, from their start to their stop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import Future
from queue import Empty
from typing import TYPE_CHECKING, Any, Final

from celeriac.pools.base import nothing
from celery import bootsteps

if TYPE_CHECKING:
    from celeriac.node.node import Node
    from celery.worker.worker import WorkController

__all__ = ("StepsThread",)

logger: logging.Logger = logging.getLogger("celery.worker.consumer.consumer")

_TICK_SECONDS: Final = 0.2  # after so long it is noticed that the end has come, or that somebody wants a call
_BEATS: Final = 4  # looks at a connection within the time in which both sides have to say something
_END_SECONDS: Final = 10.0  # for steps to stop


class StepsThread:
    """Runs the steps of a consumer beside a node; a `celeriac.node.node.Beside`.

    1. start the steps before the node is ready; what one raises ends the worker
    2. hand out the messages that come for their consumers
    3. when the connection is lost, stop them, get a new one, and start them again
    4. when the node takes no more, tell the steps of the worker, too, and stop those of the consumer

    Args:
        controller: Has the steps of the worker, and the consumer with its own.
        node: What they live beside.
    """

    def __init__(self, controller: WorkController, node: Node) -> None:
        self._controller = controller
        self._consumer = consumer = controller.consumer
        self._node = node
        self._stop = threading.Event()
        self._started: Future[None] = Future()
        self._ended: Future[None] = Future()
        for told in (self._started, self._ended):
            told.set_running_or_notify_cancel()  # who waits for it in vain takes nothing from the thread
        self._consumes = any(isinstance(step, bootsteps.ConsumerStep) for step in consumer.steps)

    async def open(self) -> None:
        """Return when the steps have been started.

        Raises:
            Exception: One of them could not be.
        """
        threading.Thread(target=self._live, name="celeriac-steps", daemon=True).start()
        try:
            await asyncio.wrap_future(self._started)
        except asyncio.CancelledError:
            self._end()
            raise

    async def run(self) -> None:
        """Go on until cancelled; the steps are stopped earlier, when the node begins to end.

        Raises:
            Exception: What has ended the thread.
        """
        ended: asyncio.Future[Any] = asyncio.wrap_future(self._ended)
        closing: asyncio.Future[Any] = asyncio.create_task(self._node.closing.wait())
        try:
            await asyncio.wait([ended, closing], return_when=asyncio.FIRST_COMPLETED)
            self._end()
            await asyncio.shield(ended)
            await asyncio.Event().wait()  # the others go on until all is done
        finally:
            closing.cancel()
            self._end()
            done, _ = await asyncio.wait([ended], timeout=_END_SECONDS)
            if not done:
                logger.warning("Some steps have not stopped within %g seconds.", _END_SECONDS)

    def _end(self) -> None:
        self._stop.set()
        self._consumer.call_soon(nothing)

    # --- in the thread -----------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            while not self._stop.is_set() and self._go_on():
                pass
        except BaseException as exc:  # noqa: BLE001 - told to the node, which ends with it
            (self._ended if self._started.done() else self._started).set_exception(exc)
        for told in (self._started, self._ended):
            if not told.done():
                told.set_result(None)

    def _go_on(self) -> bool:
        """Live with one connection; return whether there shall be another one."""
        consumer, blueprint = self._consumer, self._consumer.blueprint
        if not self._consumes:
            blueprint.start(consumer)
            self._tell_started()
            while not self._stop.is_set():
                consumer.calls.get()()
            self._stop_steps()
            return False
        connection = consumer.connection = consumer.connection_for_read(
            heartbeat=consumer.app.conf.broker_heartbeat
        )
        lost = (*connection.recoverable_connection_errors, *connection.recoverable_channel_errors)
        try:
            connection.ensure_connection(self._tell_away, max_retries=None, callback=self._give_up_when_told)
            blueprint.start(consumer)
            self._tell_started()
            self._receive(connection)
        except _Told:
            pass
        except lost as exc:
            if self._stop.is_set():
                logger.info("The connection of the steps is lost: %r", exc)
            else:
                logger.warning("The connection of the steps is lost: %r. They are started again.", exc)
                blueprint.restart(consumer, "shutdown")
                self._let_go(connection)
                return True
        self._stop_steps()
        self._let_go(connection)
        return False

    def _stop_steps(self) -> None:
        consumer = self._consumer
        self._controller.blueprint.close(self._controller)
        consumer.blueprint.stop(consumer)
        consumer.blueprint.restart(consumer, "shutdown")

    def _tell_started(self) -> None:
        if not self._started.done():
            self._started.set_result(None)

    def _tell_away(self, exc: BaseException, seconds: float) -> None:
        logger.error("The steps cannot connect: %s. Trying again in %.2f seconds...", exc, seconds)

    def _give_up_when_told(self) -> None:
        if self._stop.is_set():
            raise _Told

    def _receive(self, connection: Any) -> None:
        """Hand out what comes until it is the end."""
        interval = connection.get_heartbeat_interval() or 0
        pause = interval / _BEATS if interval and connection.supports_heartbeats else None
        due = time.monotonic()
        while not self._stop.is_set():
            self._call_what_is_wanted()
            if pause is not None and time.monotonic() >= due:
                connection.heartbeat_check(_BEATS)
                due = time.monotonic() + pause
            try:
                connection.drain_events(timeout=_TICK_SECONDS)
            except TimeoutError:
                continue

    def _call_what_is_wanted(self) -> None:
        while True:
            try:
                call = self._consumer.calls.get_nowait()
            except Empty:
                return
            call()

    def _let_go(self, connection: Any) -> None:
        self._consumer.connection = None
        connection.collect(socket_timeout=1.0)


class _Told(Exception):
    """Raised to stop trying to connect."""
