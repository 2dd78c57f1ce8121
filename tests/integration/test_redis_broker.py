"""Redis at its worst, its neighbours at their most real: what the transport does beyond the common suite."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac.errors import BrokerUnreachable, ConfigError, PublishTimeout, TransportError
from celeriac.message import Ack, DeadLetter, Delivery, Outgoing, Park, Reject, Requeue, Start, Verdict
from celeriac.net.redis_link import Links, pack
from celeriac.net.redis_servers import servers
from celeriac.ports import Consumer, ConsumeSpec
from celeriac.queues import Queue
from celeriac.testing.conformance.fixtures import ack, nothing_arrives, take
from celeriac.testing.conformance.messages import (
    envelope,
    holding_process,
    new_exchange,
    new_queue,
    read_line,
    texts,
    to_queue,
)
from celeriac.transports.redis import RedisTransport
from celeriac.wire import virtual
from redis_probe import command
from servers import RedisServer, free_port

DEADLINE_SECONDS = 10.0
BACK_SECONDS = 5.0  # how soon everything works again after the server is back


@pytest.fixture
def transport(redis_url: str) -> Iterator[RedisTransport]:
    transport = RedisTransport(redis_url, {})
    yield transport
    transport.close()


@pytest.fixture
def queue() -> Queue:
    return new_queue()


async def consume(
    transport: RedisTransport,
    *queues: Queue,
    node: str = "one@host",
    lease_seconds: float = 15.0,
    **terms: Any,
) -> Consumer:
    return await transport.consumer(
        ConsumeSpec(queues=queues, node=node, lease_seconds=lease_seconds, **terms)
    )


async def eventually(consumer: Consumer, count: int, within: float = BACK_SECONDS) -> list[Any]:
    """Receive as a node does: again after every error."""
    got: list[Any] = []
    async with asyncio.timeout(within):
        while len(got) < count:
            try:
                got.extend(await consumer.receive(count - len(got)))
            except TransportError:
                await asyncio.sleep(0.05)
    return got


async def until_armed(url: str) -> None:
    """Wait until the server waits for a message to hand over."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while b"blocked_clients:1" not in await asyncio.to_thread(command, url, "INFO", "clients"):
            await asyncio.sleep(0.01)


async def handed(
    consumer: Consumer, transport: RedisTransport, url: str, queue: Queue, text: str
) -> Delivery:
    """Send a message to a consumer that waits for it, and return it."""
    producer = transport.producer()
    waiting = asyncio.create_task(consumer.receive(1))
    await until_armed(url)
    await producer.asend([to_queue(queue, text)], deadline=DEADLINE_SECONDS)
    [delivery] = await asyncio.wait_for(waiting, DEADLINE_SECONDS)
    producer.close()
    return delivery


def catch_of(url: str) -> bytes:
    """Return the key of the only list of what was handed over."""
    [key] = command(url, "KEYS", "celeriac.catch:*")
    return bytes(key)


class TestOutages:
    """The server dies, hangs, forgets."""

    async def test_work_goes_on_after_the_server_was_killed(
        self, redis_server: RedisServer, transport: RedisTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue, str(n)) for n in range(3)], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        [held] = await take(consumer, 1)

        redis_server.kill()
        with pytest.raises(TransportError):
            producer.send([to_queue(queue, "nobody home")], deadline=DEADLINE_SECONDS)
        with pytest.raises(TransportError):
            await take(consumer, 3)
        redis_server.start()

        producer.send([to_queue(queue, "3")], deadline=DEADLINE_SECONDS)
        await consumer.settle([(held, Ack())])  # the lease outlived the connection
        got = await eventually(consumer, 3)
        await ack(consumer, got)
        assert texts(got) == ["1", "2", "3"]
        assert await nothing_arrives(consumer)
        await consumer.close()
        producer.close()

    async def test_a_waiting_consumer_notices_a_silent_server_and_comes_back(
        self, redis_server: RedisServer, transport: RedisTransport, queue: Queue
    ) -> None:
        consumer = await consume(transport, queue)
        waiting = asyncio.create_task(consumer.receive(1))
        await asyncio.wait([waiting], timeout=0.1)

        redis_server.freeze()
        began = time.monotonic()
        with pytest.raises(TransportError, match="silent"):
            await waiting
        assert time.monotonic() - began < 5.0
        redis_server.thaw()

        producer = transport.producer()
        producer.send([to_queue(queue, "after all")], deadline=DEADLINE_SECONDS)
        assert texts(await eventually(consumer, 1)) == ["after all"]
        await consumer.close()
        producer.close()

    def test_a_silent_server_costs_a_publish_its_deadline(
        self, redis_server: RedisServer, transport: RedisTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)
        redis_server.freeze()

        began = time.monotonic()
        with pytest.raises(PublishTimeout):
            producer.send([to_queue(queue)], deadline=0.5)
        took = time.monotonic() - began

        redis_server.thaw()
        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)
        assert 0.4 < took < 1.5
        producer.close()

    def test_a_connection_that_died_idle_is_not_used(
        self, redis_server: RedisServer, transport: RedisTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)
        time.sleep(0.6)  # idle long enough to be looked at before it is trusted
        redis_server.restart()

        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)

        assert transport.size(queue.name) == 2
        producer.close()

    async def test_nobody_is_declared_dead_because_the_server_was_away(
        self, redis_server: RedisServer, transport: RedisTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue, "long task")], deadline=DEADLINE_SECONDS)
        worker = await consume(transport, queue, lease_seconds=1.0)
        other = await consume(transport, queue, node="two@host", lease_seconds=1.0)
        [held] = await take(worker, 1)

        redis_server.kill()
        await asyncio.sleep(1.2)  # every lease has run out
        redis_server.start()

        with pytest.raises(TimeoutError):
            await eventually(other, 1, within=0.3)
        await worker.renew()
        with pytest.raises(TimeoutError):
            await eventually(other, 1, within=0.5)
        await worker.renew()
        await worker.settle([(held, Ack())])
        assert transport.size(queue.name) == 0
        await worker.close()
        await other.close()
        producer.close()

    async def test_a_server_that_lost_its_data_is_consumed_from_again(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue, "lost")], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue, prefetch=1)
        [held] = await take(consumer, 1)

        command(redis_url, "FLUSHDB")
        command(redis_url, "SCRIPT", "FLUSH")

        producer.send([to_queue(queue, "new")], deadline=DEADLINE_SECONDS)
        got = await eventually(consumer, 1)
        assert texts(got) == ["new"]
        await consumer.settle([(held, Requeue()), (got[0], Ack())])
        assert transport.size(queue.name) == 0
        await consumer.close()
        producer.close()


class TestDeath:
    """Nodes stop, start again, and die with work in hand."""

    async def test_a_stopped_node_is_a_zombie_when_it_goes_on(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue, str(n)) for n in range(2)], deadline=DEADLINE_SECONDS)
        with holding_process(redis_url, {}, queue, count=2, lease_seconds=1.0) as peer:
            assert await asyncio.to_thread(read_line, peer) == "holding"
            os.kill(peer.pid, signal.SIGSTOP)

            heir = await consume(transport, queue, node="heir@host", lease_seconds=15.0)
            got = await eventually(heir, 2, within=15.0)
            os.kill(peer.pid, signal.SIGCONT)

            assert [(d.redelivered, d.attempt, d.lost) for d in got] == [(True, 2, False)] * 2
            assert sorted(texts(got)) == ["0", "1"]
            await ack(heir, got)
            assert await nothing_arrives(heir)
            await heir.close()
        producer.close()

    async def test_what_had_begun_is_told_to_consumers_of_its_queue_only(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        stranger_queue = new_queue()
        producer = transport.producer()
        producer.send([to_queue(queue, "begun")], deadline=DEADLINE_SECONDS)
        with holding_process(redis_url, {}, queue, count=1, lease_seconds=0.5, start=True) as peer:
            assert await asyncio.to_thread(read_line, peer) == "holding"
        stranger = await consume(transport, stranger_queue, node="stranger@host")
        await asyncio.sleep(0.6)
        await stranger.renew()
        assert await nothing_arrives(stranger)

        kin = await consume(transport, queue, node="kin@host")
        [lost] = await eventually(kin, 1)
        await kin.settle([(lost, DeadLetter(reason="Worker exited prematurely"))])

        assert (lost.lost, lost.redelivered, lost.queue) == (True, True, queue.name)
        [letter] = transport.graveyard().find(queue.name)
        reason, kept = letter.reason, letter.envelope
        assert (reason, kept.body) == ("Worker exited prematurely", b"begun")
        await stranger.close()
        await kin.close()
        producer.close()

    async def test_the_attempts_are_counted_however_it_comes_back(
        self, transport: RedisTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue, "again and again")], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)

        seen = []
        for _ in range(3):
            [delivery] = await take(consumer, 1)
            seen.append((delivery.redelivered, delivery.attempt))
            await consumer.settle([(delivery, Requeue())])

        assert seen == [(False, 1), (True, 2), (True, 3)]
        await consumer.close()
        producer.close()

    async def test_a_closed_node_leaves_nothing_behind(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue, "done")], deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        await ack(consumer, await take(consumer, 1))

        await consumer.close()

        left = set(command(redis_url, "KEYS", "*"))
        bindings = (f"_kombu.binding.{queue.name}", f"_kombu.binding_permanent.{queue.name}")
        assert left == {b"celeriac.outage", *(name.encode() for name in bindings)}
        producer.close()


class TestSharing:
    """Nodes share what there is."""

    async def test_few_messages_are_spread_over_idle_nodes(
        self, transport: RedisTransport, queue: Queue
    ) -> None:
        one = await consume(transport, queue)
        two = await consume(transport, queue, node="two@host")
        await one.renew()  # now they know of each other
        await two.renew()
        producer = transport.producer()
        producer.send([to_queue(queue, str(n)) for n in range(4)], deadline=DEADLINE_SECONDS)

        first = await one.receive(100)
        second = await two.receive(100)

        assert texts(first) == ["0", "1"]
        assert texts(second) == ["2"]
        await one.close()
        await two.close()
        producer.close()

    async def test_one_broken_connection_loses_nothing_that_was_on_its_way(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        consumer = await consume(transport, queue)
        sent = 60
        seen: list[str] = []

        async def work() -> None:
            while len(seen) < sent:
                for delivery in await eventually(consumer, 1, within=DEADLINE_SECONDS):
                    try:
                        await consumer.settle([(delivery, Ack())])
                    except TransportError:
                        await consumer.settle([(delivery, Ack())])
                    seen.append(delivery.envelope.body.decode())

        working = asyncio.create_task(work())
        for n in range(sent):
            await producer.asend([to_queue(queue, str(n))], deadline=DEADLINE_SECONDS)
            if n % 7 == 0:  # cut every connection that has a consumer's subscription or none
                await asyncio.to_thread(
                    command, redis_url, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"
                )
                producer.close()
        await asyncio.wait_for(working, DEADLINE_SECONDS)

        assert sorted(seen, key=int) == [str(n) for n in range(sent)]
        assert await eventually(consumer, 0) == []
        await consumer.close()
        producer.close()


class TestHandingOver:
    """The server hands a message to a node that waits for it, whatever becomes of the node just then."""

    @pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
    async def test_what_is_handed_to_a_node_that_dies_comes_back(
        self, redis_url: str, transport: RedisTransport, queue: Queue, end: signal.Signals
    ) -> None:
        producer = transport.producer()
        heir = await consume(transport, queue, node="heir@host", lease_seconds=15.0)
        for attempt in range(3):
            with holding_process(redis_url, {}, queue, count=99, lease_seconds=1.0) as peer:
                while not await asyncio.to_thread(command, redis_url, "HLEN", "celeriac.catching"):
                    await asyncio.sleep(0.02)  # until it waits
                sending = asyncio.create_task(
                    producer.asend([to_queue(queue, str(attempt))], deadline=DEADLINE_SECONDS)
                )
                await asyncio.sleep(attempt * 0.0005)
                os.kill(peer.pid, end)
                await sending

                [got] = await eventually(heir, 1, within=DEADLINE_SECONDS)
                await ack(heir, [got])

            assert texts([got]) == [str(attempt)]
            assert not got.lost
        assert await nothing_arrives(heir)
        await heir.close()
        producer.close()

    @pytest.mark.parametrize("cut", ["both", "the catching one"])
    async def test_what_was_handed_over_as_the_connection_broke_is_ours_when_we_are_back(
        self, redis_url: str, transport: RedisTransport, queue: Queue, cut: str
    ) -> None:
        """The server has moved it, and says so to nobody: the answer ends with the connection.

        The commands come in one packet, so the server hands over the message, and cuts the connection before
        it writes what it has to say on it. The lease is long: nobody but the node itself can find it.
        """
        consumer = await consume(transport, queue, lease_seconds=300.0)
        waiting = asyncio.create_task(consumer.receive(1))
        while not command(redis_url, "HLEN", "celeriac.catching"):
            await asyncio.sleep(0.01)
        clients = command(redis_url, "CLIENT", "LIST").decode().splitlines()
        database = redis_url.rpartition("/")[2]
        ours = [dict(word.partition("=")[::2] for word in line.split()) for line in clients]
        ids = {client["cmd"]: client["id"] for client in ours if client["db"] == database}
        message = virtual.encode(envelope("caught"), "", queue.name)
        words: list[tuple[str | bytes, ...]] = [("LPUSH", queue.name, message)]
        words += [("CLIENT", "KILL", "ID", id_) for cmd, id_ in ids.items() if cmd == "blmove"]
        words += [
            ("CLIENT", "KILL", "ID", id_)
            for cmd, id_ in ids.items()
            if cut == "both" and not cmd.startswith(("blmove", "client"))
        ]

        links = Links(servers(redis_url, {}))
        answers = links.call(b"".join(pack(w) for w in words), len(words), time.monotonic() + 10)
        links.close()

        assert answers == [1] * len(words)
        assert len(words) == (3 if cut == "both" else 2)
        try:
            got = list(await asyncio.wait_for(waiting, BACK_SECONDS))
        except TransportError:
            got = await eventually(consumer, 1)
        assert texts(got) == ["caught"]
        await ack(consumer, got)
        assert await nothing_arrives(consumer)
        await consumer.close()

    async def test_a_node_that_closes_while_it_is_handed_something_hands_it_back(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        taken: list[str] = []
        for round_ in range(12):
            consumer = await consume(transport, queue, node=f"{round_}@host")
            waiting = asyncio.create_task(consumer.receive(1))
            while not (waiting.done() or command(redis_url, "HLEN", "celeriac.catching")):
                await asyncio.sleep(0.005)
            sending = asyncio.create_task(
                producer.asend([to_queue(queue, str(round_))], deadline=DEADLINE_SECONDS)
            )
            await asyncio.sleep(round_ * 0.0002)
            waiting.cancel()
            [outcome] = await asyncio.gather(waiting, return_exceptions=True)
            if not isinstance(outcome, BaseException):
                taken.extend(texts(list(outcome)))
                await ack(consumer, outcome)
            await consumer.close()
            await sending

        last = await consume(transport, queue, node="last@host")
        left = await eventually(last, 12 - len(taken))
        assert all((d.redelivered, d.attempt) == (False, 1) for d in left)
        assert sorted([*taken, *texts(left)], key=int) == [str(n) for n in range(12)]
        assert await nothing_arrives(last)
        await ack(last, left)
        await last.close()
        producer.close()

    async def test_what_is_handed_over_beyond_the_prefetch_limit_goes_back(
        self, redis_url: str, transport: RedisTransport
    ) -> None:
        hot, other = new_queue(), new_queue()
        consumer = await consume(transport, hot, other, prefetch=1)
        producer = transport.producer()
        got = []
        for _ in range(30):
            waiting = asyncio.create_task(consumer.receive(5))
            await asyncio.sleep(0.002)
            producer.send([to_queue(other, "a")], deadline=DEADLINE_SECONDS)
            producer.send([to_queue(hot, "b")], deadline=DEADLINE_SECONDS)
            for _ in range(2):
                deliveries = await asyncio.wait_for(waiting, DEADLINE_SECONDS)
                assert len(deliveries) == 1
                got.extend(texts(list(deliveries)))
                waiting = asyncio.create_task(consumer.receive(5))
                await ack(consumer, deliveries)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

        assert sorted(got) == ["a"] * 30 + ["b"] * 30
        await consumer.close()
        producer.close()

    async def test_what_a_node_was_handed_long_after_it_was_reaped_is_found(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        command(redis_url, "HSET", "celeriac.catching", "gone@host/1", queue.name)
        producer = transport.producer()
        producer.send([to_queue(queue, "late")], deadline=DEADLINE_SECONDS)
        command(redis_url, "LMOVE", queue.name, "celeriac.catch:gone@host/1", "RIGHT", "LEFT")

        consumer = await consume(transport, queue)
        got = await eventually(consumer, 1)
        await ack(consumer, got)

        assert texts(got) == ["late"]
        await consumer.close()
        assert command(redis_url, "EXISTS", "celeriac.lease:gone@host/1", "celeriac.catch:gone@host/1") == 0
        producer.close()

    async def test_a_dead_node_is_not_looked_after_for_ever(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        command(redis_url, "HSET", "celeriac.catching", "gone@host/1", f"{queue.name}\n1.5")

        consumer = await consume(transport, queue)

        assert command(redis_url, "EXISTS", "celeriac.catching") == 0
        await consumer.close()

    async def test_it_is_found_also_when_others_have_looked_for_it_just_before(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        # Given a dead node whose wait for a message is not over when others take over from it
        command(redis_url, "HSET", "celeriac.catching", "gone@host/1", queue.name)
        command(redis_url, "ZADD", "celeriac.nodes", 1, "gone@host/1")
        stranger = await consume(transport, new_queue(), node="stranger@host")
        assert command(redis_url, "ZSCORE", "celeriac.nodes", "gone@host/1") is None

        # When it is handed one then
        producer = transport.producer()
        producer.send([to_queue(queue, "later still")], deadline=DEADLINE_SECONDS)
        command(redis_url, "LMOVE", queue.name, "celeriac.catch:gone@host/1", "RIGHT", "LEFT")

        # Then whoever looks next finds it
        consumer = await consume(transport, queue)
        got = await eventually(consumer, 1)
        await ack(consumer, got)
        assert texts(got) == ["later still"]
        await consumer.close()
        await stranger.close()
        producer.close()

    @pytest.mark.parametrize("when", ["before", "after"])
    async def test_what_a_node_was_handed_after_it_was_reaped_is_run_when_it_goes_on(
        self, redis_url: str, transport: RedisTransport, queue: Queue, when: str
    ) -> None:
        # Given a node that waits for a message, and whose lease others have taken
        zombie = await consume(transport, queue, node="zombie@host", lease_seconds=300.0)
        heir = await consume(transport, new_queue(), node="heir@host")
        waiting = asyncio.create_task(zombie.receive(1))
        await until_armed(redis_url)
        [id_] = [id_ for id_ in command(redis_url, "ZRANGE", "celeriac.nodes", 0, -1) if b"zombie" in id_]
        command(redis_url, "ZADD", "celeriac.nodes", 1, id_)
        await heir.renew()
        assert command(redis_url, "ZSCORE", "celeriac.nodes", id_) is None

        # When it is handed one, and begins anew
        producer = transport.producer()
        if when == "after":
            await zombie.renew()
        await producer.asend([to_queue(queue, "late")], deadline=DEADLINE_SECONDS)
        got = list(await asyncio.wait_for(waiting, DEADLINE_SECONDS))
        if when == "before":
            await zombie.renew()
            if not zombie.holds(got[0]):  # else it had given up waiting in time
                got = await eventually(zombie, 1)

        # Then that is not lost
        assert texts(got) == ["late"]
        assert zombie.holds(got[0])
        await ack(zombie, got)
        assert await nothing_arrives(zombie)
        await zombie.close()
        await heir.close()
        producer.close()

    async def test_what_was_handed_over_and_is_done_leaves_nothing_behind(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        consumer = await consume(transport, queue)
        deliveries = [await handed(consumer, transport, redis_url, queue, str(n)) for n in range(3)]
        assert command(redis_url, "LLEN", catch_of(redis_url)) == 3

        await consumer.settle([(deliveries[1], Ack())])
        await consumer.settle([(deliveries[0], Ack()), (deliveries[2], Reject())])

        assert command(redis_url, "KEYS", "celeriac.catch:*") == []
        assert command(redis_url, "KEYS", "celeriac.lease:*") == []
        await consumer.close()

    @pytest.mark.parametrize(
        ("verdict", "attempt"), [(Requeue(), 2), (Requeue(untouched=True), 1), (Park(0.0), 1)], ids=repr
    )
    async def test_what_was_handed_over_can_come_again(
        self, redis_url: str, transport: RedisTransport, queue: Queue, verdict: Verdict, attempt: int
    ) -> None:
        consumer = await consume(transport, queue)
        first = await handed(consumer, transport, redis_url, queue, "x")

        await consumer.settle([(first, verdict)])
        [again] = await eventually(consumer, 1)
        await ack(consumer, [again])

        assert (texts([again]), again.attempt) == (["x"], attempt)
        assert command(redis_url, "KEYS", "celeriac.catch:*") == []
        assert command(redis_url, "KEYS", "celeriac.lease:*") == []
        await consumer.close()

    async def test_what_was_handed_over_can_be_kept_as_a_dead_letter(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        consumer = await consume(transport, queue)
        delivery = await handed(consumer, transport, redis_url, queue, "x")

        await consumer.settle([(delivery, DeadLetter("why"))])

        [letter] = transport.graveyard().find(queue.name)
        reason, kept = letter.reason, letter.envelope
        assert (reason, kept.body) == ("why", b"x")
        assert command(redis_url, "KEYS", "celeriac.catch:*") == []
        await consumer.close()

    async def test_what_was_handed_over_and_has_begun_is_told_to_be_lost(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        consumer = await consume(transport, queue)
        delivery = await handed(consumer, transport, redis_url, queue, "x")

        await consumer.settle([(delivery, Start())])
        await consumer.close()
        heir = await consume(transport, queue, node="heir@host")
        [lost] = await eventually(heir, 1)
        await ack(heir, [lost])

        assert (texts([lost]), lost.lost) == (["x"], True)
        await heir.close()

    async def test_what_was_handed_over_goes_back_when_its_node_leaves(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        consumer = await consume(transport, queue)
        for n in range(2):
            await handed(consumer, transport, redis_url, queue, str(n))

        await consumer.close()
        heir = await consume(transport, queue, node="heir@host")
        got = await eventually(heir, 2)
        await ack(heir, got)

        assert [(d.envelope.body, d.attempt) for d in got] == [(b"0", 1), (b"1", 1)]
        await heir.close()

    async def test_what_was_handed_over_from_two_queues_goes_back_to_its_own(
        self, redis_url: str, transport: RedisTransport
    ) -> None:
        one, two = new_queue(), new_queue()
        consumer = await consume(transport, one, two)
        for queue in (one, two):
            for _ in range(2):  # the second time at the latest the server is waited for at that queue
                await handed(consumer, transport, redis_url, queue, queue.name)
        [id_] = command(redis_url, "HKEYS", "celeriac.catching")
        command(redis_url, "ZADD", "celeriac.nodes", 0, id_)  # as if it had died

        heir = await consume(transport, one, two, node="heir@host")
        got = await eventually(heir, 4)
        await ack(heir, got)

        assert sorted((d.queue, d.envelope.body.decode()) for d in got) == sorted(
            2 * [(one.name, one.name), (two.name, two.name)]
        )
        await heir.close()
        await consumer.close()

    async def test_the_same_bytes_handed_over_twice_survive_a_new_connection(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        consumer = await consume(transport, queue)
        first = await handed(consumer, transport, redis_url, queue, "x")
        [message] = command(redis_url, "LRANGE", catch_of(redis_url), 0, -1)
        waiting = asyncio.create_task(consumer.receive(1))
        await until_armed(redis_url)
        await asyncio.to_thread(command, redis_url, "LPUSH", queue.name, message)
        [second] = await asyncio.wait_for(waiting, DEADLINE_SECONDS)

        command(redis_url, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        while True:
            try:
                await consumer.renew()
                break
            except TransportError:
                await asyncio.sleep(0.02)
        await consumer.settle([(first, Ack()), (second, Ack())])

        assert await nothing_arrives(consumer)
        assert command(redis_url, "KEYS", "celeriac.lease:*") == []
        await consumer.close()

    async def test_a_queue_is_listened_to_although_another_one_brings_everything(
        self, redis_url: str, transport: RedisTransport
    ) -> None:
        hot, other = new_queue(), new_queue()
        consumer = await consume(transport, hot, other)
        for n in range(5):
            await ack(consumer, [await handed(consumer, transport, redis_url, hot, str(n))])

        waiting = asyncio.create_task(consumer.receive(1))
        await until_armed(redis_url)
        producer = transport.producer()
        await producer.asend([to_queue(other, "quiet")], deadline=DEADLINE_SECONDS)
        got = await asyncio.wait_for(waiting, 0.7)  # at the latest it looks after a second by itself

        assert texts(list(got)) == ["quiet"]
        await ack(consumer, got)
        await consumer.close()
        producer.close()

    async def test_a_server_that_may_not_hand_over_rings(self, queue: Queue) -> None:
        server = RedisServer("--rename-command", "BLMOVE", "")
        server.start()
        transport = RedisTransport(server.fresh_url(), {})
        consumer = await consume(transport, queue)
        producer = transport.producer()
        for _ in range(3):
            waiting = asyncio.create_task(consumer.receive(1))
            await asyncio.wait([waiting], timeout=0.1)
            producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)
            await ack(consumer, await asyncio.wait_for(waiting, 0.5))

        await consumer.close()
        producer.close()
        transport.close()
        server.stop()


class TestWire:
    """What peers see of us."""

    def test_a_message_lies_in_the_list_as_celery_writes_it(
        self, redis_url: str, transport: RedisTransport
    ) -> None:
        queue = new_queue()
        producer = transport.producer()

        producer.send([to_queue(queue, "[[], {}, {}]", priority=5)], deadline=DEADLINE_SECONDS)

        [raw] = command(redis_url, "LRANGE", f"{queue.name}\x06\x163", 0, -1)
        document = json.loads(raw)
        assert base64.b64decode(document["body"]) == b"[[], {}, {}]"
        assert document["content-type"] == "text/plain"
        properties = document["properties"]
        assert properties["delivery_info"] == {"exchange": "", "routing_key": queue.name}
        assert properties["body_encoding"] == "base64"
        assert len(properties["delivery_tag"]) == 36
        member = f"{queue.name}\x06\x16\x06\x16{queue.name}".encode()
        assert command(redis_url, "SMEMBERS", f"_kombu.binding.{queue.name}") == [member]
        assert command(redis_url, "SMEMBERS", f"_kombu.binding_permanent.{queue.name}") == [member]
        producer.close()

    async def test_a_message_that_kombu_restored_is_a_redelivery(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        document = {
            "body": base64.b64encode(b"restored").decode(),
            "content-encoding": "utf-8",
            "content-type": "text/plain",
            "headers": {"task": "t", "id": "1", "redelivered": True},
            "properties": {
                "delivery_info": {"exchange": "", "routing_key": queue.name, "redelivered": True},
                "body_encoding": "base64",
                "delivery_tag": "t-1",
                "priority": 0,
            },
        }
        command(redis_url, "LPUSH", queue.name, json.dumps(document))

        consumer = await consume(transport, queue)
        [got] = await take(consumer, 1)
        await ack(consumer, [got])

        assert (got.redelivered, got.attempt) == (True, 2)
        assert texts([got]) == ["restored"]
        await consumer.close()

    async def test_a_delayed_message_is_in_reach_of_real_workers_until_one_of_ours_parks_it(
        self, redis_url: str, transport: RedisTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        due = time.time() + 1.5
        producer.send([to_queue(queue, "later", not_before=due)], deadline=DEADLINE_SECONDS)
        assert command(redis_url, "LLEN", queue.name) == 1

        consumer = await consume(transport, queue)
        taking = asyncio.create_task(take(consumer, 1))
        while command(redis_url, "LLEN", queue.name) and not taking.done():
            await asyncio.sleep(0.01)
        assert command(redis_url, "ZCARD", f"celeriac.parked:{queue.name}") == 1
        [got] = await taking
        came_at = time.time()
        await ack(consumer, [got])

        assert due <= came_at
        assert got.envelope.properties.extra == {}
        assert command(redis_url, "EXISTS", "celeriac.due") == 0
        await consumer.close()
        producer.close()

    async def test_a_message_parked_by_one_node_comes_to_another_in_time(
        self, transport: RedisTransport, queue: Queue
    ) -> None:
        producer = transport.producer()
        producer.send([to_queue(queue, "later")], deadline=DEADLINE_SECONDS)
        one = await consume(transport, queue)
        [held] = await take(one, 1)
        two = await consume(transport, queue, node="two@host")
        waiting = asyncio.create_task(two.receive(1))
        await asyncio.wait([waiting], timeout=0.1)
        due = time.time() + 0.3

        await one.settle([(held, Park(until=due))])
        got = await asyncio.wait_for(waiting, DEADLINE_SECONDS)
        late = time.time() - due

        assert texts(list(got)) == ["later"]
        assert 0 <= late < 0.6
        await one.close()
        await two.close()
        producer.close()

    async def test_a_broadcast_is_requeued_parked_and_buried_without_a_lease(
        self, transport: RedisTransport
    ) -> None:
        queue = new_queue(exchange=new_exchange("fanout"))
        producer = transport.producer()
        consumer = await consume(transport, queue, prefetch=1)
        producer.send(
            [
                Outgoing(
                    envelope=envelope("all"), exchange=queue.exchange.name, routing_key="any", queue=queue
                )
            ],
            deadline=DEADLINE_SECONDS,
        )

        [first] = await take(consumer, 1)
        await consumer.settle([(first, Requeue())])
        [second] = await take(consumer, 1)
        await consumer.settle([(second, Start()), (second, Park(until=time.time() + 0.1))])
        [third] = await take(consumer, 1)
        await consumer.settle([(third, DeadLetter(reason="enough"))])

        assert [(d.redelivered, d.attempt) for d in (first, second, third)] == [
            (False, 1),
            (True, 2),
            (True, 2),
        ]
        assert [letter.reason for letter in transport.graveyard().find(queue.name)] == ["enough"]
        await consumer.close()
        producer.close()

    def test_a_task_for_an_exchange_without_queues_is_refused(self, transport: RedisTransport) -> None:
        producer = transport.producer()

        with pytest.raises(TransportError, match="nowhere"):
            producer.send(
                [Outgoing(envelope=envelope(), exchange="nowhere", routing_key="x")],
                deadline=DEADLINE_SECONDS,
            )

        producer.close()

    async def test_an_exchange_that_redis_cannot_emulate_is_refused(self, transport: RedisTransport) -> None:
        queue = new_queue(exchange=new_exchange("headers"))

        with pytest.raises(ConfigError, match="headers"):
            await consume(transport, queue)


class TestAccess:
    """Who may come in, and how."""

    @pytest.fixture
    def guarded(self) -> Iterator[RedisServer]:
        server = RedisServer("--requirepass", "sekrit")
        server.start()
        yield server
        server.stop()

    def test_a_password_opens_the_door(self, guarded: RedisServer, queue: Queue) -> None:
        good = RedisTransport(f"redis://:sekrit@127.0.0.1:{guarded.port}/1", {})
        bad = RedisTransport(f"redis://:wrong-one@127.0.0.1:{guarded.port}/1", {})

        producer = good.producer()
        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)
        assert good.size(queue.name) == 1
        with pytest.raises(BrokerUnreachable, match="WRONGPASS") as caught:
            bad.producer().send([to_queue(queue)], deadline=DEADLINE_SECONDS)

        assert "wrong-one" not in str(caught.value)
        assert "sekrit" not in good.address
        producer.close()
        good.close()

    async def test_without_the_right_to_be_rung_the_consumer_looks_by_itself(
        self, guarded: RedisServer, queue: Queue, caplog: pytest.LogCaptureFixture
    ) -> None:
        admin = f"redis://:sekrit@127.0.0.1:{guarded.port}/1"
        command(admin, "ACL", "SETUSER", "deaf", "on", ">word", "~*", "&*", "+@all", "-client|tracking")
        transport = RedisTransport(f"redis://deaf:word@127.0.0.1:{guarded.port}/1", {})
        consumer = await consume(transport, queue)
        waiting = asyncio.create_task(consumer.receive(1))
        await asyncio.wait([waiting], timeout=0.1)
        producer = transport.producer()

        producer.send([to_queue(queue, "seen")], deadline=DEADLINE_SECONDS)

        assert texts(list(await asyncio.wait_for(waiting, 1.0))) == ["seen"]
        assert "20 times a second" in caplog.text
        await consumer.close()
        producer.close()
        transport.close()

    def test_the_second_server_takes_over(self, redis_server: RedisServer, queue: Queue) -> None:
        down = f"redis://127.0.0.1:{free_port()}/0"
        transport = RedisTransport(f"{down};{redis_server.fresh_url()}", {})
        producer = transport.producer()

        producer.send([to_queue(queue)], deadline=DEADLINE_SECONDS)

        assert transport.size(queue.name) == 1
        producer.close()
        transport.close()

    async def test_everything_works_over_tls(self, tmp_path: Any, queue: Queue) -> None:
        key, certificate, port = tmp_path / "key.pem", tmp_path / "cert.pem", free_port()
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
             "-keyout", key, "-out", certificate],
            check=True,
            capture_output=True,
        )  # fmt: skip
        files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no")
        server = RedisServer("--tls-port", str(port), *files)
        server.start()
        url = f"rediss://localhost:{port}/3"
        stranger = RedisTransport(url, {})
        transport = RedisTransport(f"{url}?ssl_cert_reqs=required&ssl_ca_certs={certificate}", {})
        producer = transport.producer()

        with pytest.raises(BrokerUnreachable, match=r"(?i)certificate"):
            stranger.size(queue.name)
        producer.send([to_queue(queue, "x" * 300_000)] * 3, deadline=DEADLINE_SECONDS)
        consumer = await consume(transport, queue)
        got = await take(consumer, 3)
        await ack(consumer, got)

        assert [len(text) for text in texts(got)] == [300_000] * 3
        await consumer.close()
        producer.close()
        transport.close()
        server.stop()


def test_a_thread_that_ends_leaves_no_open_connection(transport: RedisTransport, queue: Queue) -> None:
    producer = transport.producer()
    threads = [
        threading.Thread(
            target=producer.send, args=([to_queue(queue)],), kwargs={"deadline": DEADLINE_SECONDS}
        )
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    del producer
    gc.collect()  # a warning about an unclosed socket would fail the test

    assert transport.size(queue.name) == 5


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://localhost/shop", "number"),
        ("unix://", "path"),
        ("redis://localhost:7000000/0", "port"),
        ("rediss://localhost/0?ssl_cert_reqs=maybe", "required, optional or none"),
    ],
)
def test_a_url_that_cannot_be_is_told(url: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        RedisTransport(url, {})


async def test_whether_redis_hears_us_is_known_by_its_answers(
    transport: RedisTransport, queue: Queue
) -> None:
    consumer: Any = await consume(transport, queue)
    before = consumer.heard_at
    answered: asyncio.Queue[bool] = asyncio.Queue()

    consumer.touch(answered.put_nowait)
    consumer.touch(answered.put_nowait)  # waits for the same answer
    heard = [await answered.get(), await answered.get()]
    after = consumer.heard_at
    await consumer.close()
    consumer.touch(answered.put_nowait)

    assert heard == [True, True]
    assert 0.0 < before < after
    assert answered.get_nowait() is False
    assert consumer.heard_at == 0.0
