"""The revocations of a RabbitMQ broker: a stream, which many read and nobody empties."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from celeriac.errors import BrokerUnreachable
from celeriac.message import Envelope, Outgoing, Props
from celeriac.queues import Queue
from celeriac.revocations import Remembered, Revocation
from celeriac.transports.amqp import frames, topology
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.connection import ChannelClosed, Event, Lost, Message, Refused
from celeriac.transports.amqp.link import Link
from celeriac.transports.amqp.producer import AmqpProducer

Member = TypeVar("Member")

logger: logging.Logger = logging.getLogger(__name__)

_CHANNEL: Final = 1
_NOT_FOUND: Final = 404
_SECONDS: Final = 10.0
_IN_FLIGHT: Final = 1000  # messages that RabbitMQ sends ahead of our acknowledgements
_AT_ONCE: Final = 5000  # ids in one message

# What is older or more goes segment by segment. Whoever declares it otherwise is refused, so none of this
# may depend on settings.
STREAM: Final = Queue(
    name="celeriac.revoked",
    arguments={
        "x-queue-type": "stream",
        "x-max-age": "30D",
        "x-max-length-bytes": 16_000_000,
        "x-stream-max-segment-size-bytes": 1_000_000,
    },
)


class _Note(msgspec.Struct, omit_defaults=True):
    """One message of the stream."""

    made: float = 0.0  # epoch seconds, by the clock of whoever has sent it
    ids: list[str] = []
    stamps: list[tuple[str, str]] = []  # names, and values in JSON
    ends: list[tuple[str, str, str]] = []  # what is to be ended where it runs: stamp, value, signal
    mark: str = ""  # of somebody who reads, and wants to know when everything is read


_read_note: Final = msgspec.json.Decoder(_Note).decode


class AmqpRevocations:
    """What all nodes of a virtual host shall not run, `celeriac.revocations.Revocations`.

    The stream is made by who revokes first; before that, nothing has been revoked. Who reads it sends a mark
    into it and has read everything when that comes back: AMQP does not tell where a stream ends.

    Args:
        addresses: One broker, or several of which one answers.
        producer: Sends with confirms.
    """

    def __init__(self, addresses: Sequence[Address], producer: AmqpProducer) -> None:
        self._addresses = addresses
        self._producer = producer

    def note(self, revoked: Sequence[Revocation], *, kept_seconds: float) -> None:
        """See `celeriac.revocations.Revocations`; how long it is kept is the stream's to say."""
        now = time.time()
        ends = [(each.stamp, each.value, each.signal) for each in revoked if each.signal]
        ids = [each.value for each in revoked if not each.stamp and not each.signal]
        stamps = [(each.stamp, each.value) for each in revoked if each.stamp and not each.signal]
        notes = [_Note(made=now, ids=some) for some in _slices(ids)]
        notes += [_Note(made=now, ends=some) for some in _slices(ends)]
        if stamps:
            notes.append(_Note(made=now, stamps=stamps))
        self._producer.send([_outgoing(note, STREAM) for note in notes], deadline=_SECONDS)

    def recall(self) -> list[Remembered]:
        """See `celeriac.revocations.Revocations`."""
        until = time.monotonic() + _SECONDS
        mark = os.urandom(8).hex()
        reader = _Reader(mark)
        with self._link(reader, until) as link:
            link.call(until, _CHANNEL, *topology.look_at_queue(STREAM.name))
            self._producer.send([_outgoing(_Note(mark=mark), None)], deadline=_SECONDS)
            link.call(until, _CHANNEL, "basic.qos", 0, _IN_FLIGHT, False)
            link.call(
                until,
                _CHANNEL,
                "basic.consume",
                *(0, STREAM.name, "", False, False, False, False, {"x-stream-offset": "first"}),
            )
            while not reader.done:
                link.wait(lambda: reader.done or bool(reader.unread), until)
                if tag := reader.take():
                    link.send(frames.ack(_CHANNEL, tag, multiple=True), until)
            if reader.error is not None:
                raise reader.error
        return reader.remembered()

    @contextlib.contextmanager
    def _link(self, reader: _Reader, until: float) -> Iterator[Link]:
        """Lend a connection; what fails on it is told as `celeriac.errors` knows it."""
        turn = threading.Condition(threading.Lock())
        with turn:
            link = self._connected(reader, turn, until)
            try:
                yield link
            except Refused as exc:
                if exc.code != _NOT_FOUND:  # else nothing was ever revoked
                    raise link.address.failure(exc) from exc
            except (Lost, TimeoutError) as exc:
                raise link.address.failure(exc) from exc
            finally:
                link.close()

    def _connected(self, reader: _Reader, turn: threading.Condition, until: float) -> Link:
        """Return a connection to the first broker that answers."""
        *others, last = self._addresses
        for address in others:
            link = Link(address, turn, reader.hear)
            with contextlib.suppress(BrokerUnreachable):  # the last one tells
                link.connect(until)
                return link
        link = Link(last, turn, reader.hear)
        link.connect(until)
        return link


class _Reader:
    """Reads the stream up to a mark."""

    def __init__(self, mark: str) -> None:
        self.done: bool = False
        self.error: Refused | None = None
        self.unread: list[Message] = []
        self._mark = mark
        self._found: dict[Revocation, float] = {}

    def hear(self, event: Event) -> None:
        """Take in what the broker sends."""
        if isinstance(event, Message):
            self.unread.append(event)
        elif isinstance(event, ChannelClosed):
            self.done, self.error = True, event.error

    def take(self) -> int:
        """Read what has come and return the tag of the last; 0 when nothing has."""
        messages, self.unread = self.unread, []
        for message in messages:
            try:
                note = _read_note(message.body)
            except msgspec.DecodeError as exc:
                logger.warning("What %s has at %s is none of ours: %s", STREAM.name, message.tag, exc)
                continue
            self.done = self.done or note.mark == self._mark
            these = [Revocation(id_) for id_ in note.ids]
            these += [Revocation(value, name) for name, value in note.stamps]
            these += [Revocation(value, name, signal) for name, value, signal in note.ends]
            for each in these:
                self._found.pop(each, None)
                self._found[each] = note.made
        return messages[-1].tag if messages else 0

    def remembered(self) -> list[Remembered]:
        """Return what was read; the oldest first."""
        now = time.time()
        return [Remembered(each, max(0.0, now - made)) for each, made in self._found.items()]


def _slices(members: list[Member]) -> list[list[Member]]:
    return [members[start : start + _AT_ONCE] for start in range(0, len(members), _AT_ONCE)]


def _outgoing(note: _Note, queue: Queue | None) -> Outgoing:
    envelope = Envelope(headers={}, body=msgspec.json.encode(note), properties=Props(delivery_mode=2))
    return Outgoing(envelope=envelope, routing_key=STREAM.name, queue=queue)
