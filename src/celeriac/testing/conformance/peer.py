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

from celeriac.backends import BackendSpec
from celeriac.backends import connect as connect_backend
from celeriac.codecs import Codecs
from celeriac.message import Broadcast, Delivery, Start
from celeriac.ports import ConsumeSpec, ResultBackend
from celeriac.queues import Exchange, Queue
from celeriac.testing.conformance.messages import envelope, to_queue
from celeriac.testing.conformance.outcomes import success
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


def broadcast_around_fork(url: str, options: dict[str, Any], exchange: dict[str, Any]) -> None:
    """Broadcast before a fork, in the child, and in the parent after it, all through one fanout."""
    transport = connect(url, options)
    fanout = transport.fanout()

    def say(text: str) -> None:
        broadcast = Broadcast(envelope=envelope(text), exchange=msgspec.convert(exchange, Exchange))
        fanout.publish([broadcast], deadline=_DEADLINE_SECONDS)

    say("before")
    pid = os.fork()
    if pid == 0:
        say("child")
        fanout.close()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    say("parent")
    fanout.close()
    transport.close()
    _say(f"child exited {os.waitstatus_to_exitcode(status)}")


def _backend(url: str, options: dict[str, Any]) -> ResultBackend:
    backend = connect_backend(BackendSpec(url=url, codecs=Codecs(), options=options))
    assert backend is not None
    return backend


def answer(url: str, options: dict[str, Any], task_id: str) -> None:
    """Read a result and store another one that has it in its value."""
    backend = _backend(url, options)
    [read] = backend.wait([task_id], _DEADLINE_SECONDS)
    outcome = success({"read": read.result})
    _say(outcome.id)
    backend.store([backend.encode(outcome)])
    backend.close()


def store_around_fork(url: str, options: dict[str, Any]) -> None:
    """Store before a fork, in the child, and in the parent after it, all through one backend."""
    backend = _backend(url, options)
    outcomes = [success(text) for text in ("before", "child", "parent")]
    backend.store([backend.encode(outcomes[0])])
    pid = os.fork()
    if pid == 0:
        backend.store([backend.encode(outcomes[1])])
        backend.close()
        os._exit(0)
    os.waitpid(pid, 0)
    backend.store([backend.encode(outcomes[2])])
    backend.close()
    _say(msgspec.json.encode([outcome.id for outcome in outcomes]).decode())


def chord_parts(
    url: str, options: dict[str, Any], chord_id: str, ids: list[str], first: int, step: int
) -> None:
    """Finish every so-manieth part of a chord; say what its last part got."""
    backend = _backend(url, options)
    got = None
    for index in range(first, len(ids), step):
        outcome = success(index, id=ids[index])
        backend.store([backend.encode(outcome)])
        got = backend.chord_part(chord_id, index, outcome) or got
    backend.close()
    _say(msgspec.json.encode([part.result for part in got] if got else None).decode())


COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command
    for command in (hold, publish_around_fork, broadcast_around_fork, answer, store_around_fork, chord_parts)
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*msgspec.json.decode(sys.argv[2]))
