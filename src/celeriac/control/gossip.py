"""What workers hear of each other all the time, and what they decide together."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from celeriac.backoff import intervals
from celeriac.control.election import Elected, Elections
from celeriac.errors import CeleriacError, TransportError
from celeriac.events.receiver import EventReceiver
from celeriac.events.worker import Worker
from celeriac.net.lane import Lane
from celeriac.ports import Fanout, Subscription
from celeriac.wire.event import Event

if TYPE_CHECKING:
    from celeriac.node.node import Node

logger: logging.Logger = logging.getLogger("celery.worker.consumer.gossip")

_LOOK_SECONDS: Final = 5.0  # between looks for nodes that are silent
_START_SECONDS, _STEP_SECONDS, _MOST_SECONDS = 0.2, 0.4, 3.0
_ACK_SECONDS: Final = 0.25  # from hearing of a candidate to telling so
_VERSION: Final = 1  # of the way in which a leader is chosen


class Gossip:
    """Listens to the workers' own events, for as long as the node runs.

    1. know which other nodes there are
    2. keep the node's logical clock with theirs
    3. take part in elections, and do what the node was elected for

    Args:
        node: The node.
        fanout: The way to hear events.
    """

    def __init__(self, node: Node, fanout: Fanout) -> None:
        self._node = node
        self._fanout = fanout
        self._receiver = EventReceiver(app=node.app, routing_key="worker.#")
        self._subscription: Subscription | None = None
        self._others: dict[str, Worker] = {}
        self._me = f"{node.hostname}.{os.getpid()}"
        self._elections = Elections(node.hostname)
        self._topics: dict[str, Callable[[Any], object]] = {"task": self._send}
        self._lane = Lane("celeriac-elected")
        self._malformed = 0

    def others(self) -> list[str]:
        """Return the names of the other nodes that are alive."""
        return [name for name, worker in self._others.items() if worker.alive]

    async def elect(self, election_id: str, topic: str, action: Any) -> None:
        """Stand for an election.

        Args:
            election_id: Names it.
            topic: What the one who wins shall do.
            action: What that needs.
        """
        if self._elections.call(election_id):
            await self._tell(
                "worker-elect", {"id": election_id, "topic": topic, "action": action, "cver": _VERSION}
            )

    async def open(self) -> None:
        """Begin to hear, if that is possible now."""
        try:
            self._subscription = await self._fanout.subscribe(self._receiver.queue)
        except TransportError as exc:
            logger.debug("Other workers are not heard yet: %s", exc)

    async def run(self) -> None:
        """Hear until cancelled."""
        pauses = intervals(_START_SECONDS, _STEP_SECONDS, _MOST_SECONDS)
        try:
            while True:
                try:
                    if self._subscription is None:
                        self._subscription = await self._fanout.subscribe(self._receiver.queue)
                    pauses = intervals(_START_SECONDS, _STEP_SECONDS, _MOST_SECONDS)
                    await self._hear(self._subscription)
                except TransportError as exc:
                    logger.debug("Other workers are not heard: %s", exc)
                    await self._part()
                    await asyncio.sleep(next(pauses))
        finally:
            await self._part()
            await self._fanout.aclose()
            self._fanout.close()
            self._lane.close(timeout_seconds=0)

    async def _part(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()

    async def _hear(self, subscription: Subscription) -> None:
        look_at = time.monotonic() + _LOOK_SECONDS
        while True:
            try:
                async with asyncio.timeout(max(0.0, look_at - time.monotonic())):
                    broadcast = await subscription.next()
            except TimeoutError:
                self._forget_silent()
                look_at = time.monotonic() + _LOOK_SECONDS
                continue
            for event in self._receiver.read(broadcast):
                try:
                    await self._take(event)
                except (KeyError, TypeError, ValueError) as exc:
                    self._ignore(exc)

    async def _take(self, event: Event) -> None:
        """Act on an event.

        Raises:
            KeyError, TypeError, ValueError: It lacks something.
        """
        kind, host = event["type"], str(event["hostname"])
        if kind == "worker-elect":
            self._elections.stand(event)
            # Later, for a real worker decides when it has as many of these as it knows others, and by then
            # shall know all candidates: itself, first of all.
            fields = {"id": event["id"]}
            asyncio.get_running_loop().call_later(
                _ACK_SECONDS, self._node.herald.stream.emit, "worker-elect-ack", fields
            )
        elif kind == "worker-elect-ack":
            elected = self._elections.hear(event, self.others())
            if elected is not None:
                self._on_elected(elected)
        elif host != self._node.hostname:
            self._note(host, kind, event)

    def _note(self, host: str, kind: str, event: Event) -> None:
        if kind == "worker-offline":
            if self._others.pop(host, None) is not None:
                logger.debug("%s has left", host)
            return
        worker = self._others.get(host)
        if worker is None:
            worker = self._others[host] = Worker(host)
            logger.debug("%s has joined", host)
        fields = {"freq": float(event["freq"])} if "freq" in event else {}
        worker.event(kind.partition("-")[2], event["timestamp"], event["local_received"], fields)

    def _forget_silent(self) -> None:
        for host, worker in list(self._others.items()):
            if not worker.alive:
                del self._others[host]
                logger.info("missed heartbeat from %s", host)

    def _ignore(self, exc: Exception) -> None:
        self._malformed += 1
        level = logging.WARNING if self._malformed == 1 else logging.DEBUG
        logger.log(level, "An event of a worker is ignored, as will be others like it: %r", exc)

    async def _tell(self, kind: str, fields: Event) -> None:
        stream = self._node.herald.stream
        stream.emit(kind, fields)
        try:
            # At once: a real worker that counts the votes before it has two candidates does not survive it.
            await stream.flush()
        except TransportError as exc:
            logger.warning("Other workers do not hear of an election: %s", exc)

    def _on_elected(self, elected: Elected) -> None:
        if elected.leader != self._me:
            logger.info("node %s elected for %r", elected.leader, elected.topic)
            return
        logger.info("I won the election %r", elected.topic)
        act = self._topics.get(elected.topic)
        if act is None:
            logger.error("There is no topic %r to be elected for.", elected.topic)
            return
        self._lane.post(lambda: act(elected.action), self._tell_failure)

    def _send(self, action: Any) -> None:
        """Send the task of a signature."""
        self._node.app.signature(action).apply_async()

    def _tell_failure(self, _done: object, error: BaseException | None) -> None:
        if isinstance(error, CeleriacError | TypeError | ValueError | KeyError):
            logger.error("What this worker was elected for has failed: %r", error)
        elif error is not None:
            raise error
