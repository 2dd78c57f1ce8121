"""Apps on a memory broker, and the jobs that a node would make of what they have sent."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from celeriac.app import Celeriac
from celeriac.message import Ack, Delivery, Job
from celeriac.ports import ConsumeSpec

_names = itertools.count()


def memory_app(**settings: Any) -> Celeriac:
    """Return an app with a memory broker and a memory result store of its own."""
    name = f"jobs-{next(_names)}"
    settings.setdefault("broker", f"memory://{name}")
    settings.setdefault("backend", f"memory://{name}")
    return Celeriac("proj", set_as_current=False, **settings)


def deliveries(app: Celeriac) -> list[Delivery]:
    """Take what waits at the app's broker."""

    async def take() -> list[Delivery]:
        queues = app.router.consume_from()
        consumer = await app.transport.consumer(ConsumeSpec(queues=queues, node="factory@here"))
        try:
            waiting = sum(app.transport.size(queue.name) for queue in queues)
            taken = list(await consumer.receive(waiting)) if waiting else []
            await consumer.settle([(delivery, Ack()) for delivery in taken])
            return taken
        finally:
            await consumer.close()

    return asyncio.run(take())


def job_of(delivery: Delivery, number: int = 1, **fields: Any) -> Job:
    """Return the job of a delivery."""
    envelope = delivery.envelope
    return Job(
        number=number,
        id=envelope.headers["id"],
        task=envelope.headers["task"],
        headers=envelope.headers,
        body=envelope.body,
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        delivery_info={
            "exchange": delivery.exchange,
            "routing_key": delivery.routing_key,
            "priority": envelope.properties.priority,
            "redelivered": delivery.redelivered,
        },
        reply_to=envelope.properties.reply_to,
        correlation_id=envelope.properties.correlation_id,
        **fields,
    )
