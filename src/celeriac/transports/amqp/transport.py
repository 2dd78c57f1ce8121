"""RabbitMQ as a transport."""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from celeriac.errors import BrokerUnreachable, DecodeError
from celeriac.message import Envelope, Props
from celeriac.ports import Caps, ConsumeSpec
from celeriac.transports.amqp import topology
from celeriac.transports.amqp.address import Address, read
from celeriac.transports.amqp.connection import Lost, Message, Refused
from celeriac.transports.amqp.link import Link
from celeriac.transports.amqp.producer import AmqpProducer
from celeriac.transports.amqp.tables import decode_properties

if TYPE_CHECKING:
    from celeriac.transports.amqp.consumer import AmqpConsumer

_NOT_FOUND: Final = 404
_LOOK_SECONDS: Final = 30.0
_GETS: Final = 500  # basic.get in one write


class AmqpTransport:
    """RabbitMQ at one address, or at several of which one answers.

    Args:
        url: ``amqp://user:password@host:port/vhost``, also ``amqps``; several with ``;`` between.
        options: ``confirm_publish`` (True unless turned off) and those that `address.read` knows.

    Raises:
        ConfigError: The URL or an option makes no sense.
    """

    caps: Caps = Caps(leases=False, fanout=False, native_delay=False, high_priority_first=True)

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._addresses = read(url, options)
        self.address: str = "; ".join(address.shown for address in self._addresses)
        # For threads that come and go: between two of them nobody would be there to send heartbeats.
        self.quiet_addresses: list[Address] = [
            _replace_login(address, heartbeat_seconds=0) for address in self._addresses
        ]
        confirm = options.get("confirm_publish") is not False
        self._producer = AmqpProducer(self.quiet_addresses, confirm=confirm)
        # A node acknowledges a message once another is safe in its place: it has to know that it is.
        self._safe_producer = self._producer if confirm else AmqpProducer(self.quiet_addresses)

    def producer(self) -> AmqpProducer:
        """Return the producer of this transport: all who send share its connection."""
        return self._producer

    async def consumer(self, spec: ConsumeSpec) -> AmqpConsumer:
        """Connect, declare the queues and return their consumer.

        RabbitMQ takes back what a dead worker held when two heartbeats are missing, which it sees within
        three. So there is one at least every third of the spec's lease, whatever the URL or the options say
        (except for 0: none).
        """
        beat = max(1, int(spec.lease_seconds / 3))
        addresses = [
            _replace_login(
                address, name=spec.node, heartbeat_seconds=min(address.login.heartbeat_seconds, beat)
            )
            for address in self._addresses
        ]
        # Only nodes consume, and asyncio is half of what a client would have to load.
        module = importlib.import_module("celeriac.transports.amqp.consumer")
        consumer: AmqpConsumer = module.AmqpConsumer(addresses, spec, self._safe_producer)
        await consumer.connect()
        return consumer

    def purge(self, queue: str) -> int:
        """Throw away what waits in a queue and return how many messages that were; 0 when there is none."""
        return int(self._ask(0, "queue.purge", 0, queue, False))

    def size(self, queue: str) -> int:
        """Return how many messages wait in a queue; 0 when there is none."""
        return int(self._ask(1, *topology.look_at_queue(queue)))

    def dead_letters(self, queue: str, limit: int = 100) -> Sequence[tuple[str, Envelope]]:
        """Return dead letters of a queue with their reasons, newest first, without removing them.

        AMQP reads a queue from its old end only, so this walks through all of them; a connection of its own
        gives them back when it closes.
        """
        name = queue + topology.DEAD_SUFFIX
        kept: deque[Message] = deque(maxlen=limit)
        until = time.monotonic() + _LOOK_SECONDS
        turn = threading.Condition(threading.Lock())
        with turn:
            link = self._connected(turn, until)
            try:
                while True:
                    asked = [link.core.request(1, "basic.get", 0, name, False) for _ in range(_GETS)]
                    link.await_all(asked, until)
                    found = [request.answer for request in asked if isinstance(request.answer, Message)]
                    kept.extend(found)
                    if len(found) < _GETS:
                        break
            except Refused as exc:
                if exc.code != _NOT_FOUND:
                    raise link.address.failure(exc) from exc
            except (Lost, TimeoutError) as exc:
                raise link.address.failure(exc) from exc
            finally:
                link.close()
        return [_letter(message) for message in reversed(kept)]

    def whereabouts(self, task_id: str) -> str | None:
        """Return None: AMQP cannot look into queues."""
        return None

    def _connected(self, turn: threading.Condition, until: float) -> Link:
        """Return a connection to the first broker that answers."""
        *others, last = self.quiet_addresses
        for address in others:
            link = Link(address, turn, lambda event: None)
            with contextlib.suppress(BrokerUnreachable):  # the last one tells
                link.connect(until)
                return link
        link = Link(last, turn, lambda event: None)
        link.connect(until)
        return link

    def close(self) -> None:
        """Close the connections of the producers."""
        self._producer.close()
        self._safe_producer.close()

    def _ask(self, index: int, name: str, *arguments: Any) -> Any:
        """Return one value of the answer, 0 when the queue does not exist."""
        try:
            return self._producer.ask(name, *arguments)[index]
        except Refused as exc:
            if exc.code == _NOT_FOUND:
                return 0
            raise self._addresses[0].failure(exc) from exc


def _replace_login(address: Address, **changes: Any) -> Address:
    return msgspec.structs.replace(address, login=msgspec.structs.replace(address.login, **changes))


def _letter(message: Message) -> tuple[str, Envelope]:
    try:
        envelope = decode_properties(message.properties, message.body)
    except DecodeError as exc:
        return str(exc), Envelope(headers={}, body=message.body, properties=Props())
    return str(envelope.headers.get(topology.HEADER_REASON, "")), envelope
