"""The paused queues of a RabbitMQ broker: bindings, which it keeps like its queues, and a probe for each."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Final

from celeriac.message import Envelope, Props
from celeriac.queues import Exchange, Queue
from celeriac.transports.amqp import frames, topology
from celeriac.transports.amqp.address import Address
from celeriac.transports.amqp.connection import Confirm, Event, Message
from celeriac.transports.amqp.errand import errand
from celeriac.transports.amqp.tables import encode_properties

_CHANNEL: Final = 1
_PATIENCE_SECONDS: Final = 5.0
_NAME: Final = "celeriac.paused"
_EXCHANGE: Final = Exchange(name=_NAME)
# It keeps no message: only whether one would get here says something.
_SINK: Final = Queue(name=_NAME, arguments={"x-queue-type": "classic", "x-max-length": 0})
_PROBE: Final = encode_properties(Envelope(headers={}, body=b"", properties=Props(delivery_mode=1)))


class AmqpPauses:
    """Paused queues of all workers of a virtual host, `celeriac.pauses.Pauses`.

    A queue is paused when the exchange ``celeriac.paused`` has a binding for its name. RabbitMQ says so to
    whoever publishes under that key and wants back what nobody takes. Each call has a connection of its own.

    Args:
        addresses: One broker, or several of which one answers.
    """

    look_seconds: float = 30.0  # who hears commands is told at once; a connection for each look is dear

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    def pause(self, queue: str) -> None:
        """See `celeriac.pauses.Pauses`."""
        self._change(("queue.bind", 0, _NAME, _NAME, queue, False, {}))

    def resume(self, queue: str) -> None:
        """See `celeriac.pauses.Pauses`."""
        self._change(("queue.unbind", 0, _NAME, _NAME, queue, {}))

    def among(self, queues: Collection[str]) -> set[str]:
        """See `celeriac.pauses.Pauses`."""
        names = sorted(queues)
        back: set[str] = set()
        confirmed: set[int] = set()

        def take(event: Event) -> None:
            match event:
                case Message(routing_key=name):
                    back.add(name)
                case Confirm(tag=tag, multiple=multiple):
                    confirmed.update(range(1, tag + 1) if multiple else (tag,))
                case _:
                    pass

        until = time.monotonic() + _PATIENCE_SECONDS
        with errand(self._addresses, until, take) as link:
            declared = [link.core.request(_CHANNEL, *method) for method in _declarations()]
            link.await_all([*declared, link.core.request(_CHANNEL, "confirm.select", False)], until)
            for name in names:
                link.core.write(frames.method(_CHANNEL, "basic.publish", 0, _NAME, name, True, False))
                link.core.write(frames.content(_CHANNEL, _PROBE, b"", link.core.frame_max))
            link.send(b"", until)
            link.wait(lambda: len(confirmed) >= len(names), until)
        return set(names) - back

    def close(self) -> None:
        """Do nothing: no connection is kept."""

    def _change(self, change: topology.Method) -> None:
        until = time.monotonic() + _PATIENCE_SECONDS
        with errand(self._addresses, until) as link:
            link.await_all(
                [link.core.request(_CHANNEL, *method) for method in (*_declarations(), change)], until
            )


def _declarations() -> list[topology.Method]:
    return [*topology.exchange_declarations(_EXCHANGE), *topology.declarations(_SINK)]
