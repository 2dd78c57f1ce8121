"""Processes that use the embedded broker at once, die, or fill its disk; run as a program of its own.

python embedded_peer.py COMMAND FILE [NUMBER]
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

from celeriac.errors import TransportError
from celeriac.message import Ack, Envelope, Outgoing, Props
from celeriac.ports import Consumer, ConsumeSpec
from celeriac.queues import Queue, direct_queue
from celeriac.transports.sqlite import SqliteTransport

QUEUE = direct_queue("celery")
EMPTY_SECONDS = 1.5  # a consumer that gets nothing for so long is done
SMALL_RESERVE = {"reserve_bytes": 6 << 20}


def message(text: str, size: int = 0, queue: Queue = QUEUE) -> Outgoing:
    headers = {"task": "t", "id": str(uuid.uuid4())}
    envelope = Envelope(headers=headers, body=text.encode().ljust(size, b"."), properties=Props())
    return Outgoing(envelope=envelope, routing_key=queue.name, queue=queue)


def each_in_a_process(count: int, call: Callable[[int], None]) -> list[int]:
    """Fork that many at once and return the statuses that they ended with."""
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                call(number)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def killed_senders(url: str, count: int) -> None:
    """Kill one sender after the other in the moment in which `send` has returned."""

    def send(number: int) -> None:
        SqliteTransport(url, {}).producer().send([message(str(number))], deadline=30)
        os.kill(os.getpid(), signal.SIGKILL)

    for number in range(count):
        [status] = each_in_a_process(1, lambda _, number=number: send(number))  # type: ignore[misc]
        assert status == -signal.SIGKILL


def crowd(url: str, count: int) -> None:
    """Open a new file in many processes at once; half of them send, half consume. Print what came."""

    def use(number: int) -> None:
        if number % 2:
            producer = SqliteTransport(url, {}).producer()
            for part in range(20):
                producer.send([message(f"{number}-{part}")], deadline=60)
        else:
            asyncio.run(consume(url, f"node-{number}@test"))

    print(each_in_a_process(count, use))


async def consume(url: str, node: str) -> None:
    """Print and acknowledge what comes until nothing does."""
    consumer = await SqliteTransport(url, {}).consumer(ConsumeSpec(queues=(QUEUE,), node=node))
    try:
        while True:
            async with asyncio.timeout(EMPTY_SECONDS):
                got = await consumer.receive(5)
            os.write(1, b"".join(b"got %s\n" % delivery.envelope.body for delivery in got))
            await consumer.settle([(delivery, Ack()) for delivery in got])
    except TimeoutError:
        await consumer.close()


def full_disk(path: str, _: int) -> None:
    """Fill the disk by sending, work it off, fill it from outside, and mend it; print what was seen."""
    asyncio.run(_full_disk(Path(path)))


async def _full_disk(path: Path) -> None:
    transport = SqliteTransport(f"sqlite:///{path}", SMALL_RESERVE)
    producer = transport.producer()
    sent = fill(producer.send)
    consumer = await transport.consumer(ConsumeSpec(queues=(QUEUE,), node="one@test"))
    came = await work_off(consumer, sent)
    print("all came" if came == sent else f"{came} of {sent} came")
    producer.send([message("there is room again")], deadline=5)
    filler = path.with_name("filler")
    file = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(file, b"x" * 65536)
    except OSError:
        print(f"free: {shutil.disk_usage(path.parent).free}")
    os.close(file)
    more = fill(producer.send)
    filler.unlink()
    producer.send([message("mended")], deadline=5)
    came = await work_off(consumer, more + 2)
    print("all came" if came == more + 2 else f"{came} of {more + 2} came")
    await consumer.close()
    producer.close()
    transport.close()
    print(sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone()[0])


def fill(send: Callable[..., None]) -> int:
    """Send until that is refused; return how many were not."""
    sent = 0
    while True:
        try:
            send([message(str(sent), size=50_000)], deadline=5)
        except TransportError as exc:
            print(f"refused: {exc}")
            return sent
        sent += 1


async def work_off(consumer: Consumer, count: int) -> int:
    came: set[bytes] = set()
    seen = 0
    async with asyncio.timeout(60):
        while seen < count:
            got = await consumer.receive(3)
            await consumer.settle([(delivery, Ack()) for delivery in got])
            seen += len(got)
            came.update(delivery.envelope.headers["id"].encode() for delivery in got)
    return len(came)


COMMANDS: dict[str, Callable[[str, int], None]] = {
    "killed_senders": killed_senders,
    "crowd": crowd,
    "full_disk": full_disk,
}

if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    COMMANDS[sys.argv[1]](sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
