"""What is special about the embedded broker: commits, doorbells, dead owners and auto-delete queues."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.errors import PublishTimeout, TransportError
from celeriac.message import Ack, DeadLetter, Delivery, Outgoing, Reject, Start
from celeriac.ports import ConsumeSpec
from celeriac.queues import Exchange, Queue
from celeriac.testing.conformance.messages import (
    envelope,
    holding_process,
    new_queue,
    read_line,
    texts,
    to_queue,
)
from celeriac.transports import sqlite_leases
from celeriac.transports.blob import pack
from celeriac.transports.sqlite import SqliteTransport
from celeriac.transports.sqlite_consumer import SqliteConsumer
from celeriac.transports.sqlite_file import SCHEMA


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "q.db"


@pytest.fixture
def transport(file: Path) -> Iterator[SqliteTransport]:
    transport = SqliteTransport(f"sqlite:///{file}", {})
    yield transport
    transport.close()


def spec(*queues: Queue, lease_seconds: float = 15.0, node: str = "one@test") -> ConsumeSpec:
    return ConsumeSpec(queues=queues, node=node, lease_seconds=lease_seconds)


async def take(consumer: SqliteConsumer, count: int) -> list[Delivery]:
    got: list[Delivery] = []
    async with asyncio.timeout(10):
        while len(got) < count:
            got.extend(await consumer.receive(count - len(got)))
    return got


def rows(file: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(file)
    found = connection.execute(query).fetchall()
    connection.close()
    return found


def test_threads_that_send_at_once_share_a_commit(transport: SqliteTransport, file: Path) -> None:
    producer, queue = transport.producer(), new_queue()
    producer.send([to_queue(queue, "first")], deadline=5)
    blocker = sqlite3.connect(file, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    before = producer._handle.commits
    threads = [
        threading.Thread(target=producer.send, args=([to_queue(queue, str(n))],), kwargs={"deadline": 10})
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    while len(producer._waiting) < 5:
        time.sleep(0.001)

    blocker.execute("ROLLBACK")

    for thread in threads:
        thread.join()
    blocker.close()
    commits = producer._handle.commits - before
    producer.close()
    assert transport.size(queue.name) == 7
    assert commits == 2  # the one that was waiting for the lock, and the rest together


def test_a_message_that_cannot_be_routed_fails_alone(transport: SqliteTransport) -> None:
    producer, queue = transport.producer(), new_queue()
    producer.send([to_queue(queue, "first")], deadline=5)
    lost = Outgoing(envelope=envelope("lost"), exchange="nowhere", routing_key="key")

    with pytest.raises(TransportError, match="no exchange 'nowhere'") as caught:
        producer.send([to_queue(queue, "in the same batch"), lost], deadline=5)

    producer.send([to_queue(queue, "second")], deadline=5)
    producer.close()
    assert caught.value.retryable is False
    assert transport.size(queue.name) == 2


def test_a_known_exchange_without_a_matching_queue_refuses_too(transport: SqliteTransport) -> None:
    producer = transport.producer()
    queue = new_queue(exchange=Exchange(name="jobs", type="topic"), routing_key="a.*")

    with pytest.raises(TransportError, match="No queue is bound to exchange 'jobs'"):
        producer.send(
            [Outgoing(envelope=envelope(), exchange="jobs", routing_key="b.c", queue=queue)], deadline=5
        )

    producer.close()


def test_publishing_ends_in_time_when_the_file_is_locked(transport: SqliteTransport, file: Path) -> None:
    producer, queue = transport.producer(), new_queue()
    producer.send([to_queue(queue)], deadline=5)
    blocker = sqlite3.connect(file, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    began = time.monotonic()
    with pytest.raises(PublishTimeout, match="Nothing was sent"):
        producer.send([to_queue(queue)], deadline=0.2)
    took = time.monotonic() - began

    blocker.execute("ROLLBACK")
    blocker.close()
    producer.close()
    assert took < 1.0
    assert transport.size(queue.name) == 1


async def test_a_restarted_worker_takes_back_its_own_at_once(transport: SqliteTransport, file: Path) -> None:
    producer, queue = transport.producer(), new_queue()
    await producer.asend([to_queue(queue, "mine")], deadline=5)
    with holding_process(f"sqlite:///{file}", {}, queue, count=1, lease_seconds=3600) as peer:
        assert await asyncio.to_thread(read_line, peer) == "holding"
        peer.kill()
        await asyncio.to_thread(peer.wait)

        consumer = await transport.consumer(spec(queue))
        [got] = await asyncio.wait_for(consumer.receive(1), 2.0)

        await consumer.settle([(got, Ack())])
        await consumer.close()
    producer.close()
    assert (texts([got]), got.redelivered, got.attempt) == (["mine"], True, 2)


async def test_leases_of_an_earlier_boot_are_void(
    transport: SqliteTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer, queue = transport.producer(), new_queue()
    await producer.asend([to_queue(queue)], deadline=5)
    monkeypatch.setattr(sqlite_leases, "boot_id", lambda: "an earlier one")
    holder = await transport.consumer(spec(queue, lease_seconds=3600))
    await take(holder, 1)
    monkeypatch.undo()

    heir = await transport.consumer(spec(queue, node="two@test"))
    [got] = await take(heir, 1)

    await heir.settle([(got, Ack())])
    await heir.close()
    await holder.close()
    producer.close()
    assert got.redelivered


async def test_a_live_worker_is_not_taken_for_dead_by_its_bell(transport: SqliteTransport) -> None:
    producer, queue = transport.producer(), new_queue()
    await producer.asend([to_queue(queue)], deadline=5)
    holder = await transport.consumer(spec(queue))
    held = await take(holder, 1)

    other = await transport.consumer(spec(queue, node="two@test"))
    await other.renew()

    await holder.settle([(held[0], Ack())])
    await holder.close()
    await other.close()
    producer.close()
    assert transport.size(queue.name) == 0


async def test_without_bells_the_poll_finds_messages(transport: SqliteTransport, file: Path) -> None:
    transport.location.bells.touch()  # a file where the directory should be
    producer, queue = transport.producer(), new_queue()
    consumer = await transport.consumer(spec(queue))
    waiting = asyncio.create_task(consumer.receive(1))
    await asyncio.sleep(0)

    await producer.asend([to_queue(queue, "found")], deadline=5)

    got = await asyncio.wait_for(waiting, 5.0)
    await consumer.settle([(got[0], Ack())])
    await consumer.close()
    producer.close()
    assert texts(got) == ["found"]


async def test_a_missed_ring_only_costs_the_slow_poll(file: Path) -> None:
    transport = SqliteTransport(f"sqlite:///{file}", {"poll_seconds": 0.1})
    queue = new_queue()
    consumer = await transport.consumer(spec(queue))
    waiting = asyncio.create_task(consumer.receive(1))
    await asyncio.sleep(0.02)
    connection = sqlite3.connect(file)
    with connection:  # somebody who rings no bell
        connection.execute("INSERT INTO messages (id, blob) VALUES (1, x'00')")
        connection.execute("INSERT INTO ready VALUES (?, 255, 1, 0, 0)", (queue.name,))
    connection.close()

    [got] = await asyncio.wait_for(waiting, 5.0)

    await consumer.settle([(got, Reject())])
    await consumer.close()
    transport.close()
    assert got.defect is not None


async def test_an_auto_delete_queue_goes_with_its_last_consumer(
    transport: SqliteTransport, file: Path
) -> None:
    news = Exchange(name="news", type="fanout")
    queues = [new_queue(exchange=news, auto_delete=True) for _ in range(2)]
    producer = transport.producer()
    first = await transport.consumer(spec(*queues))
    second = await transport.consumer(spec(queues[0], node="two@test"))
    await producer.asend([Outgoing(envelope=envelope(), exchange="news", routing_key="")], deadline=5)

    await first.close()
    assert rows(file, "SELECT name FROM queues") == [(queues[0].name,)]
    await second.close()

    assert rows(file, "SELECT name FROM queues") == []
    assert rows(file, "SELECT * FROM bindings") == []
    assert rows(file, "SELECT count(*) FROM messages") == [(0,)]
    await producer.asend([Outgoing(envelope=envelope(), exchange="news", routing_key="")], deadline=5)
    producer.close()


async def test_settling_leaves_no_rows_behind(transport: SqliteTransport, file: Path) -> None:
    producer, queue = transport.producer(), new_queue()
    await producer.asend([to_queue(queue, str(n)) for n in range(30)], deadline=5)
    consumer = await transport.consumer(spec(queue))
    held = await take(consumer, 30)

    await consumer.settle([(delivery, Start()) for delivery in held])
    await consumer.settle([(delivery, Ack()) for delivery in held[::2]])
    await consumer.settle([(delivery, Ack()) for delivery in held[1::2]])

    await consumer.close()
    producer.close()
    for table in ("messages", "ready", "parked", "leases", "dead", "owners", "consumed"):
        assert rows(file, f"SELECT * FROM {table}") == []


async def test_no_more_dead_letters_are_kept_than_the_option_says(file: Path) -> None:
    transport = SqliteTransport(f"sqlite:///{file}", {"dead_letter_limit": 3})
    producer, queue = transport.producer(), new_queue()
    await producer.asend([to_queue(queue, str(n)) for n in range(5)], deadline=5)
    consumer = await transport.consumer(spec(queue))

    for delivery in await take(consumer, 5):
        await consumer.settle([(delivery, DeadLetter("no good"))])

    await consumer.close()
    kept = [letter.envelope.body for letter in transport.graveyard().find(queue.name)]
    assert kept == [b"4", b"3", b"2"]
    assert rows(file, "SELECT count(*) FROM messages") == [(3,)]
    producer.close()
    transport.close()


def test_dead_letters_of_a_file_of_the_second_format_are_kept(file: Path) -> None:
    blob = pack(envelope("old"))
    connection = sqlite3.connect(file)
    with connection:
        connection.executescript(
            SCHEMA.replace(", kind TEXT NOT NULL DEFAULT '',\n    node TEXT NOT NULL DEFAULT '');", ");")
        )
        connection.execute("INSERT INTO messages (id, blob) VALUES (7, ?)", (blob,))
        connection.execute("INSERT INTO dead VALUES (7, 'celery', 255, 2, 'no good', 1700000000.0)")
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    transport = SqliteTransport(f"sqlite:///{file}", {})

    [letter] = transport.graveyard().find("celery")

    assert (letter.id, letter.kind, letter.reason, letter.attempt) == ("7", "", "no good", 2)
    assert letter.envelope.body == b"old"
    assert transport.graveyard().retry("celery", ["7"]) == ["7"]
    assert transport.size("celery") == 1
    transport.close()


async def test_a_failing_disk_is_told_to_whoever_waits_and_work_goes_on_afterwards(
    transport: SqliteTransport, file: Path
) -> None:
    producer, queue = transport.producer(), new_queue()
    await producer.asend([to_queue(queue, "kept")], deadline=5)
    consumer = await transport.consumer(spec(queue))
    held = await take(consumer, 1)
    connection = sqlite3.connect(file)
    with connection:
        connection.execute(
            "CREATE TRIGGER broken BEFORE DELETE ON leases BEGIN SELECT raise(ABORT, 'broken disk'); END"
        )

    with pytest.raises(TransportError, match="broken disk"):
        await consumer.settle([(held[0], Ack())])

    with connection:
        connection.execute("DROP TRIGGER broken")
    connection.close()
    await consumer.settle([(held[0], Ack())])
    await consumer.close()
    producer.close()
    assert transport.size(queue.name) == 0


async def test_a_replaced_file_is_noticed_and_used(transport: SqliteTransport, file: Path) -> None:
    queue = new_queue()
    consumer = await transport.consumer(spec(queue))
    for path in file.parent.glob("q.db*"):
        if path.is_file():
            path.unlink()

    await consumer.renew()

    producer = transport.producer()
    await producer.asend([to_queue(queue, "new")], deadline=5)
    got = await take(consumer, 1)
    await consumer.settle([(got[0], Ack())])
    await consumer.close()
    producer.close()
    assert texts(got) == ["new"]


async def test_a_waiting_receive_is_told_when_the_consumer_closes(transport: SqliteTransport) -> None:
    consumer = await transport.consumer(spec(new_queue()))
    waiting = asyncio.create_task(consumer.receive(1))
    await asyncio.sleep(0.01)

    await consumer.close()

    with pytest.raises(TransportError, match="closed"):
        await waiting
    with pytest.raises(TransportError, match="closed"):
        await consumer.receive(1)
    await consumer.renew()  # tolerated: the node may be about to
