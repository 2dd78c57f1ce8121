"""``rpc://``: results are messages, sent over RabbitMQ to a queue of the client who waits.

Nothing is stored: a result is read by the process that sent the task, or by nobody, and is gone when that
process or RabbitMQ ends. In return it is the quickest way back.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from celeriac.backends.spec import BackendSpec
from celeriac.backends.waiter import Awaited, Waiter
from celeriac.errors import (
    BackendError,
    BackendUnreachable,
    BrokerUnreachable,
    ChordsUnsupported,
    ConfigError,
    DecodeError,
    TransportError,
)
from celeriac.message import Envelope, Outcome, Outgoing, Props, Record
from celeriac.queues import Queue
from celeriac.states import FAILURE, READY_STATES, stays
from celeriac.transports.amqp import AmqpTransport, frames, topology
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.connection import Cancelled, ChannelClosed, Event, Lost, Message, Refused
from celeriac.transports.amqp.link import Link
from celeriac.transports.amqp.tables import decode_properties
from celeriac.tries import tries_from
from celeriac.wire import result as wire

STORE_SECONDS: Final = 10.0  # for a batch of results, connecting included
_CHANNEL: Final = 1
_PREFETCH: Final = 250  # results on their way to us while nobody reads
_READ_KEPT: Final = 1000  # results that were waited for and may be asked for once more
_PATIENCE_SECONDS: Final = 60.0  # how long a wait outlives its connection
_PAUSE_SECONDS: Final = 0.3  # between two attempts to connect
_LOOK_UP_SECONDS: Final = 0.1
_FOREVER_SECONDS: Final = 1e9


class RpcBackend(Awaited):
    """Sends outcomes to the reply queue of whoever waits, and reads its own.

    Threads share one connection to read; it is opened when somebody first waits or looks.

    Args:
        spec: Its ``transport`` has to be RabbitMQ's; its option ``result_persistent`` makes results survive
            a restart of RabbitMQ when their queue does.

    Raises:
        ConfigError: The broker is not RabbitMQ.
    """

    persistent = False
    joins_chords = True  # it says itself that it cannot

    def __init__(self, spec: BackendSpec) -> None:
        if not isinstance(spec.transport, AmqpTransport):
            raise ConfigError(
                "result_backend 'rpc://' sends results over RabbitMQ, and the broker is another one: "
                "set broker_url to amqp://…, or choose a result backend such as redis:// or db+sqlite:///…"
            )
        self._transport = spec.transport
        self._producer = spec.transport.producer()
        self._spec = spec
        self._content = spec.codecs.encode(None, spec.serializer)[:2]
        self._accept = spec.accept or spec.codecs.accept_set([spec.serializer])
        self._mode = 2 if spec.options.get("result_persistent") else 1
        self._waiter = Waiter(lambda: _Listener(self._inbox_here), tries_from(spec.options))
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        arguments = (
            {"x-expires": int(self._spec.expires_seconds * 1000)} if self._spec.expires_seconds else {}
        )
        queue = Queue(name=str(uuid.uuid4()), durable=False, auto_delete=True, arguments=arguments)
        self._queue = queue
        self._declared_at: float | None = None
        self._inbox = _Inbox(
            self._transport.quiet_addresses,
            queue,
            self._outcome,
            self._spec.expires_seconds or _FOREVER_SECONDS,
        )

    def _inbox_here(self) -> _Inbox:
        self._mind_forks()
        return self._inbox

    def _mind_forks(self) -> None:
        """In a forked child: leave the parent's queue and connection alone, and begin anew."""
        if self._pid != os.getpid():
            self._inbox.abandon()
            self._begin()

    # --- storing ---

    def encode(
        self, outcome: Outcome, *, reply_to: str | None = None, correlation_id: str | None = None
    ) -> Record:
        """Return the record of an outcome. See `celeriac.ports.ResultBackend`."""
        payload = wire.pack(outcome, self._spec.codecs, self._spec.serializer)
        return Record(
            id=outcome.id,
            state=outcome.state,
            payload=payload,
            reply_to=reply_to,
            correlation_id=correlation_id or outcome.id,
        )

    def store(self, batch: Sequence[Record]) -> None:
        """Send the records to those who wait; those without a reply queue are not sent."""
        try:
            self._producer.send(self._messages(batch), deadline=STORE_SECONDS)
        except TransportError as exc:
            raise _translated(exc) from exc

    async def astore(self, batch: Sequence[Record]) -> None:
        """Do the same without blocking the node's loop."""
        try:
            await self._producer.asend(self._messages(batch), deadline=STORE_SECONDS)
        except TransportError as exc:
            raise _translated(exc) from exc

    def _messages(self, batch: Sequence[Record]) -> list[Outgoing]:
        content_type, content_encoding = self._content
        return [
            Outgoing(
                envelope=Envelope(
                    headers={},
                    body=record.payload,
                    content_type=content_type,
                    content_encoding=content_encoding,
                    properties=Props(correlation_id=record.correlation_id, delivery_mode=self._mode),
                ),
                routing_key=record.reply_to,
            )
            for record in batch
            if record.reply_to
        ]

    # --- reading ---

    def reply_address(self) -> str:
        """Return the reply queue of this process; it exists when this returns.

        Raises:
            BrokerUnreachable: RabbitMQ cannot be reached, so that nothing can be sent either.
        """
        self._mind_forks()
        now = time.monotonic()
        expires = self._spec.expires_seconds or _FOREVER_SECONDS
        # RabbitMQ removes a queue that nobody has touched for so long; one that is consumed from stays.
        if self._declared_at is None or now > self._declared_at + expires / 2:
            self._producer.keep(self._queue)
            try:
                for method in topology.declarations(self._queue):
                    self._producer.ask(*method)
            except Refused as exc:
                raise self._transport.quiet_addresses[0].unreachable(exc) from exc
            self._declared_at = now
        return self._queue.name

    def fetch(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """Return what has arrived of the ids."""
        self._mind_forks()
        try:
            return self._inbox.look(ids, known_to_exist=self._declared_at is not None)
        except TransportError as exc:
            raise _translated(exc) from exc

    def forget(self, ids: Sequence[str]) -> None:
        """Forget what has arrived of the ids."""
        self._inbox.forget(ids)

    def _outcome(self, message: Message) -> Outcome | None:
        """Return the outcome in a message; one that cannot be read is a failure that says so."""
        name = ""
        try:
            envelope = decode_properties(message.properties, message.body)
            name = envelope.properties.correlation_id or ""
            document = self._spec.codecs.decode(
                envelope.body, envelope.content_type, envelope.content_encoding, self._accept
            )
            return wire.from_document(document, name)
        except DecodeError as exc:
            if not name:
                return None  # nobody can be waiting for it
            said = type(exc)(f"The result of task {name} in queue {self._queue.name} cannot be read: {exc}.")
            return Outcome(id=name, state=FAILURE, result=said)

    # --- what messages cannot do ---

    def save_group(self, group_id: str, result: Any) -> None:
        """Refuse: there is no place to keep it."""
        _refuse("save groups")

    def restore_group(self, group_id: str) -> Any | None:
        """Refuse: nothing was kept."""
        _refuse("restore groups")

    def delete_group(self, group_id: str) -> None:
        """Refuse: nothing was kept."""
        _refuse("delete groups")

    def start_chord(self, chord_id: str, size: int, members: Any) -> None:
        """Refuse: its parts would meet nowhere."""
        _refuse("run chords", ChordsUnsupported)

    def chord_part(self, chord_id: str, index: int | None, outcome: Outcome) -> list[Outcome] | None:
        """Refuse: its parts would meet nowhere."""
        _refuse("run chords", ChordsUnsupported)

    def grow_chord(self, chord_id: str, task_ids: Sequence[str]) -> None:
        """Refuse: there are no chords."""
        _refuse("run chords", ChordsUnsupported)

    def end_chord(self, chord_id: str) -> None:
        """Refuse: nothing was kept."""
        _refuse("run chords", ChordsUnsupported)

    def claim(self, task_id: str, copy: str) -> bool:
        """Refuse: there are no chords."""
        _refuse("run chords", ChordsUnsupported)

    def cleanup(self) -> None:
        """Forget what has arrived and expired since."""
        self._inbox.expire()

    def close(self) -> None:
        """Close the connection and remove the reply queue of this process."""
        self._mind_forks()
        declared, self._declared_at = self._declared_at, None
        self._inbox.close()
        self._producer.let_go(self._queue)
        if declared is not None:
            try:
                self._producer.ask("queue.delete", 0, self._queue.name, False, False, False, deadline=1.0)
            except (TransportError, Refused):
                return  # RabbitMQ is away: then so is the queue, or it expires


class _Listener:
    """Hears of results as they come into the inbox; see `celeriac.ports.Listener`.

    Args:
        inbox: Returns the inbox of this process.
    """

    def __init__(self, inbox: Callable[[], _Inbox]) -> None:
        self._inbox = inbox
        self._watched: dict[str, Outcome | None] = {}  # with what was last told of it
        self._woken = False

    def watch(self, ids: Sequence[str]) -> list[Outcome]:
        self._watched.update(dict.fromkeys(ids))
        return []

    def unwatch(self, ids: Sequence[str]) -> None:
        for id in ids:
            self._watched.pop(id, None)

    def hear(self, until: float) -> list[Outcome]:
        try:
            news = self._inbox().take(self._watched, min(until, _FOREVER_SECONDS), lambda: self._woken)
        except TransportError as exc:
            raise _translated(exc) from exc
        self._woken = False
        for outcome in news:
            if outcome.state in READY_STATES:
                del self._watched[outcome.id]
            else:
                self._watched[outcome.id] = outcome
        return news

    def wake(self) -> None:
        self._woken = True

    def close(self) -> None: ...


class _Inbox:
    """The results that have come to this process, and the connection that they come through.

    Args:
        addresses: The brokers.
        queue: Where results come.
        read: Makes an outcome of a message.
        keep_seconds: How long a result is kept for whoever asks.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        queue: Queue,
        read: Callable[[Message], Outcome | None],
        keep_seconds: float,
    ) -> None:
        self._addresses = addresses
        self._queue = queue
        self._read = read
        self._keep_seconds = keep_seconds
        self._turn = threading.Condition(threading.Lock())
        self._link: Link | None = None
        self._arrived = 0
        self._new: OrderedDict[str, tuple[float, Outcome]] = OrderedDict()  # oldest first
        self._taken: OrderedDict[str, tuple[float, Outcome]] = OrderedDict()

    def take(
        self, told: Mapping[str, Outcome | None], until: float, woken: Callable[[], bool]
    ) -> list[Outcome]:
        """Return news, at least one; nothing when late or woken.

        Args:
            told: The ids that it is about, with what is known of each already.
            until: When it is late; `time.monotonic` seconds.
            woken: Whether to return at once.
        """
        with self._turn:
            trying_since = 0.0
            while True:
                found = [(entry[1], told[id]) for id in told if (entry := self._find(id)) is not None]
                news = [outcome for outcome, known in found if outcome is not known]
                for outcome in news:
                    if outcome.state in READY_STATES:
                        self._keep_taken(outcome.id)
                if news or woken():
                    return news
                seen = self._arrived  # before it reads anything
                try:
                    self._await_arrival(self._connected(until), seen, until, woken)
                    trying_since = 0.0
                except (Lost, Refused, BrokerUnreachable, OSError) as exc:
                    error = self._addresses[0].unreachable(exc)
                    if not error.retryable:
                        raise error from exc
                    now = time.monotonic()
                    if now >= until:
                        return []
                    trying_since = trying_since or now
                    if now > trying_since + _PATIENCE_SECONDS:
                        raise error from exc
                    self._turn.wait(min(_PAUSE_SECONDS, until - now))

    def look(self, ids: Sequence[str], *, known_to_exist: bool) -> dict[str, Outcome]:
        """Return what has arrived of the ids until now."""
        with self._turn:
            self._expire()
            if known_to_exist and not all(self._is_ready(one) for one in ids):
                self._catch_up(time.monotonic() + STORE_SECONDS)
            found = {one: self._find(one) for one in ids}
            return {one: entry[1] for one, entry in found.items() if entry is not None}

    def forget(self, ids: Sequence[str]) -> None:
        """Drop what has arrived of the ids."""
        with self._turn:
            for one in ids:
                self._new.pop(one, None)
                self._taken.pop(one, None)

    def expire(self) -> None:
        """Drop what is older than results are kept."""
        with self._turn:
            self._expire()

    def close(self) -> None:
        """Close the connection."""
        with self._turn:
            link, self._link = self._link, None
            if link is not None:
                link.close()

    def abandon(self) -> None:
        """Let go of a connection that belongs to the parent of this process."""
        if self._link is not None:
            self._link.abandon()

    # --- inside, with the turn held ---

    def _await_arrival(self, link: Link, seen: int, until: float, woken: Callable[[], bool]) -> None:
        """Return when something has arrived, or when woken: nothing wakes its socket, so it looks up."""
        while self._arrived == seen and not woken():
            look_up_at = time.monotonic() + _LOOK_UP_SECONDS
            try:
                link.wait(lambda: self._arrived != seen, min(until, look_up_at))
            except TimeoutError:
                if until <= look_up_at:
                    raise

    def _find(self, task_id: str) -> tuple[float, Outcome] | None:
        return self._new.get(task_id) or self._taken.get(task_id)

    def _is_ready(self, task_id: str) -> bool:
        entry = self._find(task_id)
        return entry is not None and entry[1].state in READY_STATES

    def _keep_taken(self, task_id: str) -> None:
        entry = self._new.pop(task_id, None)
        if entry is not None:
            self._taken[task_id] = entry
            if len(self._taken) > _READ_KEPT:
                self._taken.popitem(last=False)

    def _expire(self) -> None:
        horizon = time.monotonic() - self._keep_seconds
        for kept in (self._new, self._taken):
            while kept and next(iter(kept.values()))[0] < horizon:
                kept.popitem(last=False)

    def _connected(self, until: float) -> Link:
        """Return the link, consuming from the queue."""
        while True:
            link = self._link
            if link is not None and link.glance():
                if link.core.ready.done:
                    return link
                link.wait_until_ready(until)
                continue
            link = self._connect(until)
            link.core.open_channel(_CHANNEL)
            methods = [
                *topology.declarations(self._queue),
                ("basic.qos", 0, _PREFETCH, False),
                ("basic.consume", 0, self._queue.name, "results", False, False, False, False, {}),
            ]
            link.await_all([link.core.request(_CHANNEL, *method) for method in methods], until)

    def _connect(self, until: float) -> Link:
        for index, address in enumerate(self._addresses):
            # Known before it is connected: other threads must wait for it, not open a second one.
            self._link = link = Link(address, self._turn, self._on_event)
            try:
                link.connect(until)
            except BrokerUnreachable:
                if index + 1 == len(self._addresses):
                    raise
            else:
                return link
        raise AssertionError("no address")

    def _catch_up(self, until: float) -> None:
        """Read everything that is in the queue by now.

        RabbitMQ pushes. Once the queue says that nothing waits in it, everything is on its way through the
        channel, and what the channel answers after that comes behind it.
        """
        try:
            waiting = 1
            while waiting:
                link = self._connected(until)
                _, waiting, _ = link.call(until, _CHANNEL, *topology.look_at_queue(self._queue.name))
                link.call(until, _CHANNEL, "basic.qos", 0, _PREFETCH, False)
        except (Lost, Refused, OSError) as exc:
            raise self._addresses[0].failure(exc) from exc

    def _on_event(self, event: Event) -> None:
        link = self._link
        if isinstance(event, Message):
            self._arrived += 1
            outcome = self._read(event)
            if outcome is not None:
                self._put(outcome)
            if link is not None:
                link.core.write(frames.ack(_CHANNEL, event.tag))
        elif isinstance(event, ChannelClosed | Cancelled) and link is not None:
            link.drop(Lost("RabbitMQ has removed the reply queue"))  # the next wait declares it anew

    def _put(self, outcome: Outcome) -> None:
        known = self._find(outcome.id)
        if known is not None and stays(known[1].state, outcome.state):
            return
        self._taken.pop(outcome.id, None)
        self._new[outcome.id] = (time.monotonic(), outcome)
        self._new.move_to_end(outcome.id)
        self._expire()


def _refuse(what: str, error: type[BackendError] = BackendError) -> NoReturn:
    raise error(
        f"The result backend rpc:// cannot {what}: its results are messages that only the sender of a task "
        "reads. Use redis://, db+…:// or another backend that keeps results."
    )


def _translated(exc: TransportError) -> BackendError:
    # Sending a result twice does no harm, so one that is in doubt may simply be sent again.
    return BackendUnreachable(str(exc)) if exc.retryable else BackendError(str(exc))
