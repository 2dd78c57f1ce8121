"""What the dead letters of a transport owe."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from celeriac.letters import Wanted
from celeriac.message import DeadLetter, LetterKind, Requeue
from celeriac.ports import Producer, Transport
from celeriac.queues import Queue
from celeriac.testing.conformance.fixtures import (
    DEADLINE_SECONDS,
    Consume,
    TransportFixtures,
    ack,
    nothing_arrives,
    take,
)
from celeriac.testing.conformance.messages import new_queue, texts, to_queue


class LetterTests(TransportFixtures):
    """What `graveyard` owes."""

    async def _bury(
        self,
        consume: Consume,
        producer: Producer,
        queue: Queue,
        bodies: Sequence[str],
        kind: LetterKind = "poison",
        **props: Any,  # Any: fields of Props
    ) -> None:
        batch = [to_queue(queue, text, **props) for text in bodies]
        async with consume(queue) as consumer:
            await producer.asend(batch, deadline=DEADLINE_SECONDS)
            for delivery in await take(consumer, len(bodies)):
                text = delivery.envelope.body.decode()
                await consumer.settle([(delivery, DeadLetter(f"no good: {text} é", kind))])

    async def test_a_letter_tells_all_that_is_known_of_it(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        message = to_queue(queue, "a", priority=3)
        async with consume(queue) as consumer:
            await producer.asend([message], deadline=DEADLINE_SECONDS)
            [held] = await take(consumer, 1)
            await consumer.settle([(held, Requeue())])
            [held] = await take(consumer, 1)
            await consumer.settle([(held, DeadLetter("it kills", "poison"))])

        [letter] = await asyncio.to_thread(transport.graveyard().find, queue.name)

        assert (letter.queue, letter.kind, letter.reason) == (queue.name, "poison", "it kills")
        assert (letter.node, letter.attempt) == ("one@conformance", 2)
        assert time.time() - 600 < letter.at <= time.time() + 1
        assert (letter.exchange, letter.routing_key) == (held.exchange, held.routing_key)
        assert letter.envelope.headers == message.envelope.headers
        assert letter.envelope.body == b"a"
        assert letter.envelope.properties.correlation_id == message.envelope.properties.correlation_id
        assert letter.envelope.properties.priority == 3

    async def test_letters_are_found_newest_first_by_what_is_wanted_of_them(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        await self._bury(consume, producer, queue, ["a", "b"], "poison")
        await self._bury(consume, producer, queue, ["c"], "unregistered")
        graveyard = transport.graveyard()

        def found(limit: int = 100, **wanted: Any) -> list[bytes]:  # Any: fields of Wanted
            return [one.envelope.body for one in graveyard.find(queue.name, Wanted(**wanted), limit)]

        assert found() == [b"c", b"b", b"a"]
        assert found(limit=2) == [b"c", b"b"]
        assert found(limit=1, kinds=frozenset({"poison"})) == [b"b"]
        assert found(names=frozenset({"conformance.task"})) == [b"c", b"b", b"a"]
        assert found(names=frozenset({"another.task"})) == []
        assert found(since=time.time() + 60) == []
        assert found(before=time.time() + 60) == [b"c", b"b", b"a"]
        newest, *_, oldest = graveyard.find(queue.name)
        task_id = newest.envelope.headers["id"]
        assert found(ids=frozenset({oldest.id, task_id})) == [b"c", b"a"]

    async def test_a_letter_that_is_retried_comes_as_it_was_first_sent_and_only_once(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        message = to_queue(queue, "again", priority=3)
        async with consume(queue) as consumer:
            await producer.asend([message, to_queue(queue, "stays")], deadline=DEADLINE_SECONDS)
            held = await take(consumer, 2)
            await consumer.settle([(one, Requeue()) for one in held])
            held = await take(consumer, 2)
            await consumer.settle([(one, DeadLetter("no", "poison")) for one in held])
        graveyard = transport.graveyard()
        [id_] = [one.id for one in graveyard.find(queue.name) if one.envelope.body == b"again"]

        attempts = [asyncio.to_thread(transport.graveyard().retry, queue.name, [id_]) for _ in range(2)]
        moved = await asyncio.gather(*attempts)

        assert sorted(moved) == [[], [id_]]
        assert [one.envelope.body for one in graveyard.find(queue.name)] == [b"stays"]
        async with consume(queue) as consumer:
            [delivery] = await take(consumer, 1)
            await ack(consumer, [delivery])
            assert await nothing_arrives(consumer)
        assert (delivery.attempt, delivery.redelivered, delivery.lost) == (1, False, False)
        assert delivery.envelope.headers == message.envelope.headers
        assert delivery.envelope.body == b"again"
        assert delivery.envelope.properties.priority == 3

    async def test_retried_letters_wake_a_consumer(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        await self._bury(consume, producer, queue, ["a", "b", "c"])
        async with consume(queue) as consumer:
            waiting = asyncio.create_task(take(consumer, 3))

            ids = [one.id for one in await asyncio.to_thread(transport.graveyard().find, queue.name)]
            await asyncio.to_thread(transport.graveyard().retry, queue.name, ids)

            got = await waiting
            await ack(consumer, got)
        assert sorted(texts(got)) == ["a", "b", "c"]

    async def test_retried_letters_keep_their_order_behind_those_that_wait(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        await self._bury(consume, producer, queue, ["a", "b", "c"])
        await producer.asend([to_queue(queue, "waits")], deadline=DEADLINE_SECONDS)

        ids = [one.id for one in await asyncio.to_thread(transport.graveyard().find, queue.name)]
        await asyncio.to_thread(transport.graveyard().retry, queue.name, ids)

        async with consume(queue) as consumer:
            got = await take(consumer, 4)
            await ack(consumer, got)
        assert texts(got) == ["waits", "a", "b", "c"]

    async def test_a_letter_that_is_purged_is_gone(
        self, transport: Transport, producer: Producer, consume: Consume, queue: Queue
    ) -> None:
        await self._bury(consume, producer, queue, ["a", "b"])
        graveyard = transport.graveyard()
        newest, _ = graveyard.find(queue.name)

        assert graveyard.purge(queue.name, [newest.id, "nonsense"]) == [newest.id]

        assert [one.envelope.body for one in graveyard.find(queue.name)] == [b"a"]
        assert graveyard.purge(queue.name, [newest.id]) == []
        assert graveyard.retry(queue.name, [newest.id]) == []
        assert transport.size(queue.name) == 0

    def test_a_queue_nobody_knows_has_no_letters(self, transport: Transport) -> None:
        graveyard, name = transport.graveyard(), new_queue().name

        assert graveyard.find(name) == []
        assert graveyard.retry(name, ["1"]) == []
        assert graveyard.purge(name, ["1"]) == []
