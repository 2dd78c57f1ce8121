"""Hearing events."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from celeriac.errors import CodecError, DecodeError
from celeriac.events.terms import terms_of
from celeriac.message import Broadcast
from celeriac.ports import Fanout, Subscription
from celeriac.queues import Exchange, Queue
from celeriac.wire import event as wire
from celeriac.wire.event import Event

logger: logging.Logger = logging.getLogger("celery.events.receiver")

Handler = Callable[[Event], object]

_LOOK_SECONDS: Final = 0.5  # between looks at `should_stop`, which is set from elsewhere
_CLIENT_CLOCK_AHEAD: Final = 1  # of what a client has sent: it has no part in the fleet's clock


class EventReceiver:
    """Hears events and calls handlers: Celery's ``app.events.Receiver``.

    Args:
        channel: Accepted for Celery's sake: events are heard over the app's own connections.
        handlers: Called with events, by their type; ``*`` is for those that have no handler of their own.
        routing_key: A topic pattern of types. Those of tasks come from workers under ``task.multi``.
        node_id: Names the queue; a new id when not given.
        app: The app; a Celeriac.
        queue_prefix: The first part of the queue's name; the setting ``event_queue_prefix`` when not given.
        accept: Content types that are read; the setting of the serializer and ``json`` when not given.
        queue_ttl: Seconds after which an unread event is dropped; ``event_queue_ttl`` when not given.
        queue_expires: Seconds after which an unused queue is removed; ``event_queue_expires`` likewise.
        queue_exclusive: Whether the queue is the connection's own; ``event_queue_exclusive`` likewise.
        queue_durable: Whether it outlives the broker; ``event_queue_durable`` likewise.
    """

    app: Any = None

    def __init__(
        self,
        channel: Any = None,
        handlers: Mapping[str, Handler] | None = None,
        routing_key: str = "#",
        node_id: str | None = None,
        app: Any = None,
        queue_prefix: str | None = None,
        accept: Iterable[str] | None = None,
        queue_ttl: float | None = None,
        queue_expires: float | None = None,
        queue_exclusive: bool | None = None,
        queue_durable: bool | None = None,
    ) -> None:
        self.app = app or self.app
        self.channel = channel
        self.handlers: dict[str, Handler] = dict(handlers or {})
        self.routing_key = routing_key
        self.node_id: str = node_id or self.app.new_id()
        self.should_stop: bool = False
        self.malformed: int = 0  # messages that were no events
        given = {
            "prefix": queue_prefix,
            "ttl_seconds": queue_ttl,
            "expires_seconds": queue_expires,
            "exclusive": queue_exclusive,
            "durable": queue_durable,
        }
        terms = terms_of(self.app.conf)
        known = {name: value for name, value in given.items() if value is not None}
        terms = wire.Terms(**{**{name: getattr(terms, name) for name in terms.__struct_fields__}, **known})
        self.exchange: Exchange = terms.exchange
        self.queue: Queue = terms.queue(self.node_id, routing_key)
        self.clock: Any = self.app.clock
        codecs = self.app.codecs
        self.accept: frozenset[str] = codecs.accept_set(
            {self.app.conf.event_serializer, "json"} if accept is None else accept
        )
        self._offset = wire.utc_offset()

    def capture(
        self, limit: int | None = None, timeout: float | None = None, wakeup: bool | None = True
    ) -> None:
        """Hear events and call handlers, until `should_stop` is set or the limit is reached.

        Args:
            limit: So many messages, which may hold several events each.
            timeout: Seconds without an event after which it is an error.
            wakeup: Have the workers send a heartbeat first.

        Raises:
            TimeoutError: (the built-in one) nothing has come for so long.
            TransportError: The broker cannot be reached, or the connection was lost.
        """
        _run(lambda: self._hear(self._handle, limit, timeout, wakeup=bool(wakeup)))

    def itercapture(
        self, limit: int | None = None, timeout: float | None = None, wakeup: bool | None = True
    ) -> Iterator[list[Event]]:
        """Hear events, call handlers, and yield what came in one message each.

        Args:
            limit: As for `capture`.
            timeout: As for `capture`.
            wakeup: As for `capture`.

        Raises:
            TimeoutError: As for `capture`.
            TransportError: As for `capture`.
        """
        news: queue.SimpleQueue[list[Event] | BaseException | None] = queue.SimpleQueue()

        def listen() -> None:
            try:
                _run(lambda: self._hear(news.put, limit, timeout, wakeup=bool(wakeup)))
                news.put(None)
            except BaseException as exc:  # noqa: BLE001 - raised again where it was asked for
                news.put(exc)

        thread = threading.Thread(target=listen, name="celeriac-events", daemon=True)
        thread.start()
        try:
            while (heard := news.get()) is not None:
                if isinstance(heard, BaseException):
                    raise heard
                self._handle(heard)
                yield heard
        finally:
            self.should_stop = True

    def process(self, type: str, event: Event) -> None:
        """Call the handler of an event."""
        handler = self.handlers.get(type) or self.handlers.get("*")
        if handler is not None:
            handler(event)

    def wakeup_workers(self, channel: Any = None) -> None:
        """Have the workers send a heartbeat."""
        self.app.control.broadcast("heartbeat")

    def event_from_message(
        self, body: Event, localize: bool = True, now: Callable[[], float] = time.time
    ) -> tuple[str, Event]:
        """Return the type of an event and the event, with what a receiver adds to it.

        Args:
            body: The event; changed in place.
            localize: Move its time to the offset of this machine.
            now: Says what time it is, in epoch seconds.
        """
        kind = body["type"]
        if kind == "task-sent":
            # The clock of a client tells nothing about the fleet's.
            body["clock"] = self.clock.value + _CLIENT_CLOCK_AHEAD
            self.clock.adjust(self.clock.value)
        else:
            clock = body.get("clock")
            if isinstance(clock, int):
                self.clock.adjust(clock)
            else:
                body["clock"] = self.clock.forward()
        if localize and isinstance(body.get("utcoffset"), int) and "timestamp" in body:
            body["timestamp"] -= (body["utcoffset"] - self._offset) * 3600
        body["local_received"] = now()
        return kind, body

    def read(self, broadcast: Broadcast) -> list[Event]:
        """Return the events in a message; none, told once in the log, when it has none that can be read."""
        try:
            if broadcast.defect is not None:
                raise DecodeError(broadcast.defect)
            envelope = broadcast.envelope
            body = self.app.codecs.decode(
                envelope.body, envelope.content_type, envelope.content_encoding, self.accept
            )
            return [self.event_from_message(event)[1] for event in wire.unpack(body)]
        except CodecError as exc:
            self.malformed += 1
            level = logging.WARNING if self.malformed == 1 else logging.DEBUG
            logger.log(level, "A message is no event and ignored, as will be others like it: %s.", exc)
            return []

    # --- inside --------------------------------------------------------------------------------------

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            self.process(event["type"], event)

    async def _hear(
        self, take: Callable[[list[Event]], object], limit: int | None, seconds: float | None, *, wakeup: bool
    ) -> None:
        fanout: Fanout = self.app.transport.fanout()
        try:
            subscription = await fanout.subscribe(self.queue)
            if wakeup:
                await asyncio.to_thread(self.wakeup_workers)
            heard, quiet_since = 0, time.monotonic()
            while not self.should_stop and (limit is None or heard < limit):
                broadcast = await _next(subscription, seconds)
                if broadcast is not None:
                    quiet_since = time.monotonic()
                    heard += 1
                    if events := self.read(broadcast):
                        take(events)
                elif seconds is not None and time.monotonic() - quiet_since >= seconds:
                    raise TimeoutError(f"No event has come for {seconds:g} seconds.")
        finally:
            await fanout.aclose()
            fanout.close()


async def _next(subscription: Subscription, seconds: float | None) -> Broadcast | None:
    """Return the next message; None when none comes soon."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS if seconds is None else min(seconds, _LOOK_SECONDS)):
            return await subscription.next()
    except TimeoutError:
        return None


def _run(work: Callable[[], Any]) -> None:
    """Run a coroutine to its end, in a thread of its own where this one has a loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work())
        return
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as exc:  # noqa: BLE001 - raised again where it was asked for
            errors.append(exc)

    thread = threading.Thread(target=run, name="celeriac-events")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
