"""RabbitMQ, over AMQP 0-9-1 spoken by ourselves.

``tables`` and ``frames`` are values and bytes, ``connection`` is the protocol without sockets, ``link``
and ``stream`` move its bytes for threads and for asyncio; ``producer`` (with its ``session``) and
``consumer`` are the ports, ``topology`` says how things are declared, ``address`` reads the URL.
"""

from __future__ import annotations

from celeriac.transports.amqp.transport import AmqpTransport

__all__ = ["AmqpTransport"]
