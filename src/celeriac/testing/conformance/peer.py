"""The other process of the conformance suites: consumers that die, producers that fork, readers elsewhere.

Run as ``python -m celeriac.testing.conformance.peer COMMAND ARGUMENTS``, the arguments a JSON list.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from celeriac.message import Delivery, Start
from celeriac.ports import ConsumeSpec
from celeriac.queues import Queue
from celeriac.testing.conformance.messages import to_queue
from celeriac.transports import connect

_DEADLINE_SECONDS = 10.0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the parent reads it


def hold(  # noqa: PLR0913, RUF100 - the arguments of a command line
    url: str, options: dict[str, Any], queue: dict[str, Any], count: int, lease_seconds: float, start: bool
) -> None:
    """Take messages, perhaps start them, and keep them until killed."""
    asyncio.run(_hold(url, options, msgspec.convert(queue, Queue), count, lease_seconds, start))


async def _hold(
    url: str, options: dict[str, Any], queue: Queue, count: int, lease_seconds: float, start: bool
) -> None:
    spec = ConsumeSpec(queues=(queue,), node=f"peer-{os.getpid()}@conformance", lease_seconds=lease_seconds)
    consumer = await connect(url, options).consumer(spec)
    held: list[Delivery] = []
    while len(held) < count:
        held.extend(await consumer.receive(count - len(held)))
    if start:
        await consumer.settle([(delivery, Start()) for delivery in held])
    _say("holding")
    await asyncio.Event().wait()


def publish_around_fork(url: str, options: dict[str, Any], queue: dict[str, Any]) -> None:
    """Send before a fork, in the child, and in the parent after it, all through one producer."""
    target = msgspec.convert(queue, Queue)
    transport = connect(url, options)
    producer = transport.producer()
    producer.send([to_queue(target, "before")], deadline=_DEADLINE_SECONDS)
    pid = os.fork()
    if pid == 0:
        producer.send([to_queue(target, f"child-{n}") for n in range(3)], deadline=_DEADLINE_SECONDS)
        producer.close()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    producer.send([to_queue(target, f"parent-{n}") for n in range(3)], deadline=_DEADLINE_SECONDS)
    producer.close()
    transport.close()
    _say(f"child exited {os.waitstatus_to_exitcode(status)}")


COMMANDS: dict[str, Callable[..., None]] = {"hold": hold, "publish_around_fork": publish_around_fork}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*msgspec.json.decode(sys.argv[2]))
