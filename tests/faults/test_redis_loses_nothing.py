"""Consumers are killed and connections cut while messages come in: none is lost, none is settled twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from celeriac.errors import TransportError
from celeriac.ports import ConsumeSpec
from celeriac.queues import direct_queue
from celeriac.testing.conformance.fixtures import ack
from celeriac.testing.conformance.messages import texts, to_queue
from celeriac.transports.redis import RedisTransport
from redis_probe import command

WORKER = Path(__file__).with_name("redis_worker.py")
QUEUE = "faults"
LEASE_SECONDS = 3.0  # a process that stalls longer on a busy machine would spoil the test
LASTS_SECONDS = 6.0
QUIET_SECONDS = 2 * LEASE_SECONDS  # after that nothing more can come back


class Fleet:
    """Worker processes and what they have said."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._started = 0
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start one more."""
        self._started += 1
        with (self._folder / f"{self._started}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, WORKER, self._url, QUEUE, str(LEASE_SECONDS)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                stdout=log,
                stderr=subprocess.DEVNULL,
            )
        self.processes.append(process)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill -9."""
        process.kill()
        process.wait()
        self.processes.remove(process)

    def said(self, word: str) -> Counter[str]:
        """Count how often a word was said of each message."""
        lines = [line for log in self._folder.glob("*.log") for line in log.read_text().splitlines()]
        return Counter(line.partition(" ")[2] for line in lines if line.startswith(f"{word} "))


@contextlib.contextmanager
def fleet(url: str, folder: Path, size: int) -> Iterator[Fleet]:
    """Run some workers; killed at the end."""
    workers = Fleet(url, folder)
    try:
        for _ in range(size):
            workers.start()
        yield workers
    finally:
        for process in list(workers.processes):
            workers.kill(process)


class Sender(threading.Thread):
    """Sends as fast as it may until it is told to stop, in ones, twos and tens."""

    def __init__(self, transport: RedisTransport) -> None:
        super().__init__()
        self._producer = transport.producer()
        self.enough = threading.Event()
        self.sent: list[str] = []
        self.doubtful: set[str] = set()  # sent again, because nobody knows whether they had arrived

    def run(self) -> None:
        """Send."""
        dice = random.Random()
        while not self.enough.wait(dice.choice([0, 0.001, 0.005, 0.02])):
            count = dice.choice([1, 1, 1, 2, 10])
            names = [str(len(self.sent) + offset) for offset in range(count)]
            queues = [direct_queue(dice.choice([QUEUE, QUEUE, f"{QUEUE}-2"])) for _ in names]
            batch = [
                to_queue(queue, name, priority=dice.choice([0, 0, 0, 5]))
                for queue, name in zip(queues, names, strict=True)
            ]
            while True:
                try:
                    self._producer.send(batch, deadline=5.0)
                except TransportError:
                    self.doubtful.update(names)
                else:
                    break
            self.sent.extend(names)
        self._producer.close()


def make_trouble(url: str, workers: Fleet) -> None:
    """Kill workers and cut connections for a while."""
    dice = random.Random()
    end = time.monotonic() + LASTS_SECONDS
    while time.monotonic() < end:
        time.sleep(dice.uniform(0.2, 0.6))
        if dice.random() < 0.5:
            workers.kill(dice.choice(workers.processes))
            workers.start()
        else:
            database = f"db={url.rpartition('/')[2]} ".encode()
            for line in command(url, "CLIENT", "LIST").splitlines():
                if database in line and dice.random() < 0.3:
                    number = line.split()[0].partition(b"=")[2]
                    command(url, "CLIENT", "KILL", "ID", number)


async def drain(transport: RedisTransport) -> list[str]:
    """Return what is left once nobody else is there, until nothing comes for a while."""
    queues = (direct_queue(QUEUE), direct_queue(f"{QUEUE}-2"))
    consumer = await transport.consumer(
        ConsumeSpec(queues=queues, node="last@faults", lease_seconds=LEASE_SECONDS)
    )
    left: list[str] = []
    with contextlib.suppress(TimeoutError):
        while True:
            deliveries = await asyncio.wait_for(consumer.receive(500), QUIET_SECONDS)
            left.extend(texts(list(deliveries)))
            await ack(consumer, deliveries)
    await consumer.close()
    return left


def test_whatever_dies_every_message_is_done_once(redis_url: str, tmp_path: Path) -> None:
    transport = RedisTransport(redis_url, {})
    sender = Sender(transport)
    with fleet(redis_url, tmp_path, 3) as workers:
        sender.start()
        make_trouble(redis_url, workers)
        sender.enough.set()
        sender.join()
    left = Counter(asyncio.run(drain(transport)))
    transport.close()

    got, done = workers.said("got"), workers.said("done")
    assert len(sender.sent) > 100
    # One that was settled just before its worker was killed may have been got but not told to be done.
    assert [name for name in sender.sent if not (got[name] or left[name])] == []
    twice = [name for name in sender.sent if done[name] + left[name] > 1 and name not in sender.doubtful]
    assert twice == []
    assert transport.size(QUEUE) + transport.size(f"{QUEUE}-2") == 0
