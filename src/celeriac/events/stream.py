"""The stream of events of a node: a buffer with a limit, and one publish for all that has gathered."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from celeriac.backoff import intervals
from celeriac.clock import LamportClock
from celeriac.errors import CodecError, TransportError
from celeriac.events.terms import terms_of
from celeriac.message import Broadcast
from celeriac.ports import Fanout
from celeriac.wire import event as wire
from celeriac.wire.event import Event
from celeriac.wire.task_event import TaskEvent

logger: logging.Logger = logging.getLogger("celery.events")

MOST_WAITING: Final = 10_000  # events that the broker has not taken yet
LIST_MOST: Final = 100  # events in one message
PAUSE_SECONDS: Final = 0.02  # between two publishes: what comes in between goes together
_PUBLISH_SECONDS: Final = 5.0
_RETRY_START_SECONDS, _RETRY_STEP_SECONDS, _RETRY_MOST_SECONDS = 0.5, 0.5, 3.0

AnyEvent = Event | TaskEvent


class EventStream:
    """Sends what a node has to tell, in its order, without ever keeping anybody waiting.

    What the broker does not take is kept for when it is back; when there is too much, the oldest is dropped,
    counted, and told in the log. Used on the node's loop.

    Args:
        app: The app; a Celeriac.
        fanout: The way to those who listen.
        hostname: The node's name.
    """

    def __init__(self, app: Any, fanout: Fanout, hostname: str) -> None:  # Any: see above
        self._app = app
        self._fanout = fanout
        self._hostname = hostname
        self._exchange = terms_of(app.conf).exchange
        self._serializer: str = app.conf.event_serializer
        self._offset = wire.utc_offset()
        self._pid = os.getpid()
        self._clock: LamportClock = app.clock
        self._waiting: deque[AnyEvent] = deque(maxlen=MOST_WAITING)
        self._news = asyncio.Event()
        self._untold = 0  # dropped since the log has last told so
        self.sent: int = 0
        self.dropped: int = 0

    def emit(self, kind: str, fields: Event, timestamp: float | None = None) -> None:
        """Tell something that is no matter of a task alone.

        Args:
            kind: The type, such as ``worker-online``.
            fields: What the type has besides the fields of all events.
            timestamp: Epoch seconds; now, when not given.
        """
        event: Event = {
            "hostname": self._hostname,
            "utcoffset": self._offset,
            "pid": self._pid,
            "clock": 0,
            **fields,
            "timestamp": time.time() if timestamp is None else timestamp,
            "type": kind,
        }
        self._keep(event)

    def tell(self, event: TaskEvent, timestamp: float | None = None) -> None:
        """Tell what has become of a task.

        Args:
            event: It, all but when it was and who tells it; the stream's from now on.
            timestamp: Epoch seconds; now, when not given.
        """
        event.hostname = self._hostname
        event.utcoffset = self._offset
        event.pid = self._pid
        event.timestamp = time.time() if timestamp is None else timestamp
        self._keep(event)

    def _keep(self, event: AnyEvent) -> None:
        waiting = self._waiting
        if not waiting:
            self._news.set()
        elif len(waiting) == MOST_WAITING:
            self._drop(1)
        waiting.append(event)

    async def run(self) -> None:
        """Send what is told until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self._insist()
            await asyncio.sleep(PAUSE_SECONDS)

    async def flush(self) -> None:
        """Send what waits, once.

        Raises:
            TransportError: The broker did not take it; it still waits.
        """
        events = [*self._waiting]
        self._waiting.clear()
        if not events:
            return
        self._stamp(events)
        try:
            await self._fanout.apublish(self._messages(events), deadline=_PUBLISH_SECONDS)
        except BaseException as exc:
            if isinstance(exc, CodecError):
                self._drop(len(events))
            else:
                self._put_back(events)
            raise
        self.sent += len(events)
        if self._untold:
            logger.warning(
                "%s events were dropped: the broker did not take them, or not as fast as they came. Monitors "
                "have missed them; tasks and results have not suffered.",
                self._untold,
            )
            self._untold = 0

    async def close(self) -> None:
        """Let go of the connections; what waits is not sent."""
        await self._fanout.aclose()
        self._fanout.close()

    async def _insist(self) -> None:
        """Send what waits, trying until the broker takes it."""
        for pause in intervals(_RETRY_START_SECONDS, _RETRY_STEP_SECONDS, _RETRY_MOST_SECONDS):
            try:
                await self.flush()
            except TransportError as exc:
                logger.warning("Events cannot be sent: %s Trying again in %.1f s.", exc, pause)
                await asyncio.sleep(pause)
            except CodecError as exc:
                logger.error(
                    "Some events are dropped: the serializer %r refuses one: %s", self._serializer, exc
                )
                return
            else:
                return

    def _stamp(self, events: list[AnyEvent]) -> None:
        """Give events their values of the logical clock, in their order; it is locked once for all."""
        stamp = self._clock.forward(len(events)) - len(events)
        for event in events:
            stamp += 1
            if isinstance(event, TaskEvent):
                event.clock = stamp
            else:
                event["clock"] = stamp

    def _put_back(self, events: list[AnyEvent]) -> None:
        """Keep what was not sent, before what has come meanwhile; the oldest go when it is too much."""
        too_many = len(events) + len(self._waiting) - MOST_WAITING
        if too_many > 0:
            self._drop(too_many)
        self._waiting.extendleft(reversed(events[max(too_many, 0) :]))

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._untold += count

    def _messages(self, events: Iterable[AnyEvent]) -> list[Broadcast]:
        """Return the messages of events: those of tasks in lists, each of the others alone."""
        messages = []
        for of_tasks, run in itertools.groupby(events, _is_of_task):
            if of_tasks:
                while piece := list(itertools.islice(run, LIST_MOST)):
                    messages.append(self._message(piece, wire.MULTI_KEY))
            else:
                messages.extend(
                    self._message(event, wire.routing_key(event["type"])) for event in map(_as_dict, run)
                )
        return messages

    def _message(self, body: AnyEvent | list[AnyEvent], key: str) -> Broadcast:
        return wire.broadcast(self._encode(body), self._exchange, key, self._hostname)

    def _encode(self, body: AnyEvent | list[AnyEvent]) -> tuple[str, str, bytes]:
        if self._serializer == "json":
            try:  # a fifth of what the codec of users' values takes, and these are plain
                return "application/json", "utf-8", msgspec.json.encode(body)
            except (TypeError, ValueError):  # half a character in what somebody has sent as a name
                pass
        plain = [_as_dict(event) for event in body] if isinstance(body, list) else _as_dict(body)
        encoded: tuple[str, str, bytes] = self._app.codecs.encode(plain, self._serializer)
        return encoded


def _is_of_task(event: AnyEvent) -> bool:
    return isinstance(event, TaskEvent) or wire.group_of(event["type"]) == wire.TASK_GROUP


def _as_dict(event: AnyEvent) -> Event:
    plain: Event = event if isinstance(event, dict) else msgspec.to_builtins(event)
    return plain
