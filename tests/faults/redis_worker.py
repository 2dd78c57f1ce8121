"""A consumer in a process of its own that says which messages it has got and which it has settled.

Run as ``python redis_worker.py URL QUEUE LEASE_SECONDS``; prints ``got ID`` and ``done ID``.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time

from celeriac.errors import TransportError
from celeriac.message import Ack, Delivery, Park, Requeue, Verdict
from celeriac.ports import Consumer, ConsumeSpec
from celeriac.queues import direct_queue
from celeriac.transports import connect


def verdict(dice: random.Random) -> Verdict:
    """Mostly Ack, now and then one of those after which it comes again."""
    number = dice.random()
    if number < 0.03:
        return Requeue(untouched=True)
    if number < 0.06:
        return Park(until=time.time() + 0.2)
    return Requeue() if number < 0.08 else Ack()


async def settle(consumer: Consumer, verdicts: list[tuple[Delivery, Verdict]]) -> None:
    """Settle them, again and again until the broker has it, as a node does."""
    while True:
        try:
            await consumer.settle(verdicts)
        except TransportError:
            await asyncio.sleep(0.05)
        else:
            return


async def renew(consumer: Consumer, seconds: float) -> None:
    """Renew the leases until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await consumer.renew()
        except TransportError:
            continue


async def main(url: str, queue: str, lease_seconds: float) -> None:
    """Consume until killed."""
    dice = random.Random()
    spec = ConsumeSpec(
        queues=(direct_queue(queue), direct_queue(f"{queue}-2")),
        node=f"{os.getpid()}@faults",
        prefetch=dice.choice([0, 1, 4, 20]),
        lease_seconds=lease_seconds,
    )
    consumer = await connect(url).consumer(spec)
    renewing = asyncio.create_task(renew(consumer, lease_seconds / 3))
    while not renewing.done():
        try:
            taken = await consumer.receive(dice.choice([1, 3, 50]))
        except TransportError:
            await asyncio.sleep(0.05)
            continue
        for delivery in taken:
            print("got", delivery.envelope.body.decode(), flush=True)
        if dice.random() < 0.3:
            await asyncio.sleep(dice.random() * 0.01)
        verdicts = [(delivery, verdict(dice)) for delivery in taken]
        await settle(consumer, verdicts)
        for delivery, what in verdicts:
            if isinstance(what, Ack):
                print("done", delivery.envelope.body.decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
