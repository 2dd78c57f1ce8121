"""The obligations of `celeriac.ports.Fanout`, as tests that every transport passes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest

from celeriac.errors import BrokerUnreachable, TransportError
from celeriac.message import Broadcast
from celeriac.ports import Fanout, Subscription, Transport
from celeriac.queues import Exchange, Queue
from celeriac.testing.conformance.fixtures import DEADLINE_SECONDS, QUIET_SECONDS, TransportFixtures
from celeriac.testing.conformance.messages import PATIENCE_SECONDS, envelope, process, read_line
from celeriac.transports import connect

Listen = Callable[..., AbstractAsyncContextManager[Subscription]]


def exchange_of(kind: str) -> Exchange:
    """Return an exchange that no other test uses, as short-lived as those of control."""
    return Exchange(name=f"conformance-{kind}-{uuid.uuid4().hex[:12]}", type=kind, durable=False)


def listener_to(exchange: Exchange, key: str = "") -> Queue:
    """Return a queue of one listener."""
    return Queue(
        name=f"{uuid.uuid4().hex[:12]}.{exchange.name}",
        exchange=exchange,
        routing_key=key,
        durable=False,
        auto_delete=True,
        no_ack=True,
        arguments={"x-message-ttl": 300_000, "x-expires": 10_000},
    )


def said(exchange: Exchange, text: str, key: str = "") -> Broadcast:
    """Return a broadcast whose body is the text."""
    return Broadcast(envelope=envelope(text, delivery_mode=1), exchange=exchange, routing_key=key)


async def hear(subscription: Subscription, count: int) -> list[str]:
    """Return the texts of the next broadcasts."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [(await subscription.next()).envelope.body.decode() for _ in range(count)]


async def is_silent(subscription: Subscription) -> bool:
    """Return whether nothing comes."""
    try:
        async with asyncio.timeout(QUIET_SECONDS):
            unexpected = await subscription.next()
    except TimeoutError:
        return True
    raise AssertionError(f"heard {unexpected!r}")


class BroadcastTests(TransportFixtures):
    """What broadcasts owe."""

    tells_how_many_hear = True  # `publish` returns a number

    @pytest.fixture
    async def fanout(self, transport: Transport) -> AsyncIterator[Fanout]:
        """Yield the sender's side, closed at the end."""
        fanout = transport.fanout()
        yield fanout
        await fanout.aclose()
        fanout.close()

    @pytest.fixture
    def listen(self, transport: Transport) -> Listen:
        """Return a context manager that listens, by connections of its own."""

        @contextlib.asynccontextmanager
        async def listening(queue: Queue) -> AsyncIterator[Subscription]:
            fanout = transport.fanout()
            subscription = await fanout.subscribe(queue)
            try:
                yield subscription
            finally:
                await subscription.close()
                await fanout.aclose()
                fanout.close()

        return listening

    async def test_everybody_who_listens_hears_a_broadcast_as_it_was_sent(
        self, fanout: Fanout, listen: Listen
    ) -> None:
        exchange = exchange_of("fanout")
        sent = Broadcast(envelope=envelope(delivery_mode=1, reply_to="somewhere"), exchange=exchange)
        sent.envelope.headers = {"clock": 7, "expires": 1234.5, "ticket": None}
        sent.envelope.body = bytes(range(256))

        async with listen(listener_to(exchange)) as one, listen(listener_to(exchange)) as two:
            count = await fanout.apublish([sent], deadline=DEADLINE_SECONDS)
            async with asyncio.timeout(PATIENCE_SECONDS):
                heard = [await one.next(), await two.next()]

        for broadcast in heard:
            broadcast.envelope.properties.delivery_tag = sent.envelope.properties.delivery_tag
            assert broadcast == sent
        assert count == (2 if self.tells_how_many_hear else None)

    async def test_a_topic_is_heard_by_those_whose_pattern_covers_it(
        self, fanout: Fanout, listen: Listen
    ) -> None:
        exchange = exchange_of("topic")

        async with (
            listen(listener_to(exchange, "#")) as everything,
            listen(listener_to(exchange, "worker.#")) as workers,
        ):
            batch = [
                said(exchange, text, text)
                for text in ("worker.online", "task.multi", "worker.elect.ack", "end")
            ]
            await fanout.apublish(batch, deadline=DEADLINE_SECONDS)

            assert await hear(everything, 4) == ["worker.online", "task.multi", "worker.elect.ack", "end"]
            assert await hear(workers, 2) == ["worker.online", "worker.elect.ack"]
            assert await is_silent(workers)

    async def test_an_answer_reaches_only_who_waits_under_its_key(
        self, fanout: Fanout, listen: Listen
    ) -> None:
        exchange = exchange_of("direct")

        async with listen(listener_to(exchange, "a")) as one, listen(listener_to(exchange, "b")) as other:
            await fanout.apublish([said(exchange, "for a", "a")], deadline=DEADLINE_SECONDS)
            await fanout.apublish([said(exchange, "for nobody", "c")], deadline=DEADLINE_SECONDS)

            assert await hear(one, 1) == ["for a"]
            assert await is_silent(other)

    async def test_the_order_is_kept(self, fanout: Fanout, listen: Listen) -> None:
        exchange = exchange_of("fanout")
        texts = [str(number) for number in range(300)]

        async with listen(listener_to(exchange)) as subscription:
            await fanout.apublish([said(exchange, t) for t in texts[:150]], deadline=DEADLINE_SECONDS)
            await fanout.apublish([said(exchange, t) for t in texts[150:]], deadline=DEADLINE_SECONDS)

            assert await hear(subscription, 300) == texts

    async def test_what_was_said_before_somebody_listened_is_not_heard(
        self, fanout: Fanout, listen: Listen
    ) -> None:
        exchange = exchange_of("fanout")

        count = await fanout.apublish([said(exchange, "to nobody")], deadline=DEADLINE_SECONDS)
        async with listen(listener_to(exchange)) as subscription:
            await fanout.apublish([said(exchange, "to you")], deadline=DEADLINE_SECONDS)

            assert await hear(subscription, 1) == ["to you"]
        assert count == (0 if self.tells_how_many_hear else None)

    async def test_who_has_left_hears_nothing_and_keeps_nobody_from_hearing(
        self, transport: Transport, fanout: Fanout
    ) -> None:
        exchange = exchange_of("fanout")
        ears = transport.fanout()
        leaving, staying = [await ears.subscribe(listener_to(exchange)) for _ in range(2)]

        await leaving.close()
        await leaving.close()
        await fanout.apublish([said(exchange, "still there?")], deadline=DEADLINE_SECONDS)

        assert await hear(staying, 1) == ["still there?"]
        with pytest.raises(TransportError):
            await leaving.next()
        await ears.aclose()
        ears.close()

    async def test_a_wait_that_is_cancelled_loses_nothing(self, fanout: Fanout, listen: Listen) -> None:
        exchange = exchange_of("fanout")

        async with listen(listener_to(exchange)) as subscription:
            assert await is_silent(subscription)
            await fanout.apublish([said(exchange, "now")], deadline=DEADLINE_SECONDS)

            assert await hear(subscription, 1) == ["now"]

    async def test_threads_without_a_loop_send_too(self, fanout: Fanout, listen: Listen) -> None:
        exchange = exchange_of("fanout")

        def send(text: str) -> None:
            fanout.publish([said(exchange, text)], deadline=DEADLINE_SECONDS)

        async with listen(listener_to(exchange)) as subscription:
            threads = [threading.Thread(target=send, args=(str(number),)) for number in range(4)]
            for thread in threads:
                thread.start()

            assert sorted(await hear(subscription, 4)) == ["0", "1", "2", "3"]
            for thread in threads:
                thread.join()

    async def test_other_processes_hear_and_send_after_a_fork(
        self, transport: Transport, broker_url: str, transport_options: dict[str, Any], listen: Listen
    ) -> None:
        if not transport.caps.across_processes:
            pytest.skip("it does not reach other processes")
        exchange = exchange_of("fanout")

        async with listen(listener_to(exchange)) as subscription:
            with process(
                "broadcast_around_fork", broker_url, transport_options, msgspec.to_builtins(exchange)
            ) as peer:
                heard = await hear(subscription, 3)
                line = await asyncio.to_thread(read_line, peer)

        assert heard == ["before", "child", "parent"]
        assert line == "child exited 0"

    async def test_a_broker_that_is_not_there_is_named_without_its_password(
        self, unreachable_url: str | None, transport_options: dict[str, Any]
    ) -> None:
        if unreachable_url is None:
            pytest.skip("it is always there")
        transport = connect(unreachable_url, {**transport_options, "connect_timeout": 0.5})
        fanout = transport.fanout()
        exchange = exchange_of("fanout")

        with pytest.raises(BrokerUnreachable) as sending:
            fanout.publish([said(exchange, "x")], deadline=2.0)
        with pytest.raises(BrokerUnreachable) as listening:
            await fanout.subscribe(listener_to(exchange))

        assert "sekrit" not in f"{sending.value} {listening.value}"
        await fanout.aclose()
        fanout.close()
        transport.close()
