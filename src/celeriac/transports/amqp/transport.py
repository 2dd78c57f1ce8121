"""RabbitMQ as a transport."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from celeriac.bursts import Bursts
from celeriac.errors import ConfigError, TransportError
from celeriac.locks import Locks
from celeriac.message import Delivery
from celeriac.pauses import Pauses
from celeriac.permits import Permits
from celeriac.ports import Caps, ConsumeSpec, Fanout
from celeriac.revocations import Revocations
from celeriac.timetable import Timetable
from celeriac.transports.amqp import topology
from celeriac.transports.amqp.address import Address, read
from celeriac.transports.amqp.connection import Refused
from celeriac.transports.amqp.delays import QueueType
from celeriac.transports.amqp.graveyard import AmqpGraveyard
from celeriac.transports.amqp.producer import AmqpProducer

if TYPE_CHECKING:
    from celeriac.transports.amqp.consumer import AmqpConsumer

_NOT_FOUND: Final = 404


class AmqpTransport:
    """RabbitMQ at one address, or at several of which one answers.

    Args:
        url: ``amqp://user:password@host:port/vhost``, also ``amqps``; several with ``;`` between.
        options: ``confirm_publish`` (True unless turned off), ``delay_queues`` (type of the queues in which
            RabbitMQ keeps what is sent for later to quorum queues: quorum or classic; None: it does not) and
            those that `address.read` knows.

    Raises:
        ConfigError: The URL or an option makes no sense.
    """

    caps: Caps = Caps(
        leases=False,
        native_delay=False,
        high_priority_first=True,
        gossip=True,
        revocations=True,
        timetable=True,
    )

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._addresses = read(url, options)
        self.address: str = "; ".join(address.shown for address in self._addresses)
        # For threads that come and go: between two of them nobody would be there to send heartbeats.
        self.quiet_addresses: list[Address] = [
            _replace_login(address, heartbeat_seconds=0) for address in self._addresses
        ]
        confirm = options.get("confirm_publish") is not False
        self._delay_queues = _delay_queues(options.get("delay_queues", "quorum"))
        self._producer = AmqpProducer(self.quiet_addresses, confirm=confirm, delay_queues=self._delay_queues)
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
        consumer: AmqpConsumer = module.AmqpConsumer(addresses, spec, self._safe_producer, self._delay_queues)
        await consumer.connect()
        return consumer

    def fanout(self) -> Fanout:
        """See `celeriac.ports.Transport`."""
        # By name for the same reason as the consumer.
        module = importlib.import_module("celeriac.transports.amqp.fanout")
        fanout: Fanout = module.AmqpFanout(self._addresses, self._producer)
        return fanout

    def purge(self, queue: str) -> int:
        """Throw away what waits in a queue and return how many messages that were; 0 when there is none."""
        return int(self._ask(0, "queue.purge", 0, queue, False))

    def size(self, queue: str) -> int:
        """Return how many messages wait in a queue; 0 when there is none."""
        return int(self._ask(1, *topology.look_at_queue(queue)))

    def ready(self, queue: str) -> int:
        """See `celeriac.ports.Transport`."""
        return self.size(queue)

    def oldest(self, queue: str) -> float | None:
        """Return None: AMQP cannot look into queues, but by taking messages and giving them back marked."""
        return None

    def parked(self, queue: str, limit: int) -> list[tuple[Delivery, float]]:
        """Return nothing: workers hold what is for later, and nobody can look into the queues of `delays`."""
        return []

    def reap(self) -> int:
        """Do nothing: RabbitMQ takes back by itself what dead nodes held."""
        return 0

    def graveyard(self) -> AmqpGraveyard:
        """Return the dead letters."""
        return AmqpGraveyard(self.quiet_addresses, self._safe_producer)

    def permits(self) -> Permits:
        """Refuse: RabbitMQ keeps nothing but messages."""
        raise TransportError(
            "RabbitMQ keeps no permits; task_limits_url names a Redis server that does.", retryable=False
        )

    def locks(self) -> Locks:
        """Refuse: RabbitMQ keeps nothing but messages."""
        raise TransportError(
            "RabbitMQ keeps no locks; task_limits_url names a Redis server that does.", retryable=False
        )

    def bursts(self) -> Bursts:
        """Refuse: RabbitMQ keeps nothing but messages."""
        raise TransportError(
            "RabbitMQ keeps no bursts; task_limits_url names a Redis server that does.", retryable=False
        )

    def revocations(self) -> Revocations:
        """Return what all nodes of the virtual host shall not run."""
        module = importlib.import_module("celeriac.transports.amqp.revocations")
        kept: Revocations = module.AmqpRevocations(self.quiet_addresses, self._safe_producer)
        return kept

    def timetable(self, owner: str) -> Timetable:
        """Return the timetable of all schedulers of the virtual host."""
        module = importlib.import_module("celeriac.transports.amqp.timetable")
        timetable: Timetable = module.AmqpTimetable(self._addresses, owner)
        return timetable

    def pauses(self) -> Pauses:
        """Return what remembers paused queues."""
        module = importlib.import_module("celeriac.transports.amqp.pauses")
        pauses: Pauses = module.AmqpPauses(self.quiet_addresses)
        return pauses

    def whereabouts(self, task_id: str) -> str | None:
        """Return None: AMQP cannot look into queues."""
        return None

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


def _delay_queues(kind: Any) -> QueueType | None:  # Any: a user's value
    if kind is None or kind in ("quorum", "classic"):
        chosen: QueueType | None = kind
        return chosen
    raise ConfigError(
        f"broker_native_delayed_delivery_queue_type has to be 'quorum' or 'classic', not {kind!r}."
    )


def _replace_login(address: Address, **changes: Any) -> Address:
    return msgspec.structs.replace(address, login=msgspec.structs.replace(address.login, **changes))
