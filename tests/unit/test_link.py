"""The link to the broker: how long and how often it is tried."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from typing import Any, cast

import pytest

from celeriac.errors import BrokerUnreachable, TransportError
from celeriac.node.link import GiveUp, Link, RetryPolicy
from celeriac.ports import Caps, Consumer, ConsumeSpec, Transport

AWAY = BrokerUnreachable("nobody answers")
REFUSED = BrokerUnreachable("wrong password")
REFUSED.retryable = False
AT_ONCE = (0.0, 0.0, 0.0)


class Broker:
    """A transport and its consumer that answer connection attempts from a list; None is a success."""

    address = "test://"
    caps = Caps()

    def __init__(self, *answers: TransportError | None) -> None:
        self.answers: Iterator[TransportError | None] = iter(answers)
        self.attempts = 0

    async def consumer(self, spec: ConsumeSpec) -> Consumer:
        await self.renew()
        return cast("Consumer", self)

    async def renew(self) -> None:
        self.attempts += 1
        answer = next(self.answers)
        if answer is not None:
            raise answer


def link_to(broker: Broker, **policy: Any) -> Link:
    spec = ConsumeSpec(queues=(), node="one@host")
    return Link(cast("Transport", broker), spec, RetryPolicy(**{"intervals": AT_ONCE, **policy}))


async def lose(link: Link, times: int = 1) -> None:
    if not link.connected:
        await link.connect()
    for _ in range(times):
        await link.lost(AWAY)


async def test_a_broker_that_is_away_at_the_start_is_tried_again() -> None:
    broker = Broker(AWAY, AWAY, None)

    await link_to(broker).connect()

    assert broker.attempts == 3


async def test_what_cannot_be_mended_by_waiting_ends_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(GiveUp):
        await link_to(Broker(REFUSED, None)).connect()

    assert "Unrecoverable error: BrokerUnreachable('wrong password')" in caplog.text


async def test_with_broker_channel_error_retry_it_does_not() -> None:
    broker = Broker(REFUSED, None)

    await link_to(broker, retry_refusals=True).connect()

    assert broker.attempts == 2


async def test_a_refusal_after_a_loss_is_tried_again_for_somebody_may_mend_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker(None, AWAY, REFUSED, REFUSED, None)
    link = link_to(broker)
    await link.connect()

    await link.lost(AWAY)

    assert broker.attempts == 5
    assert "Trying again in 0.00 seconds... (2/100)" in caplog.text


async def test_after_a_loss_it_tries_sooner_than_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    async def first_pause(link: Link) -> str:
        caplog.clear()
        trying = asyncio.create_task(lose(link))
        while "Trying again in" not in caplog.text:
            await asyncio.sleep(0.001)
        trying.cancel()
        return caplog.text.partition("Trying again in ")[2].partition(" seconds")[0]

    waits = {"intervals": (2.0, 2.0, 30.0)}

    at_start = await first_pause(link_to(Broker(AWAY), **waits))
    after_a_loss = await first_pause(link_to(Broker(None, AWAY), **waits))

    assert (at_start, after_a_loss) == ("2.00", "0.50")


async def test_after_so_many_attempts_it_gives_up(caplog: pytest.LogCaptureFixture) -> None:
    link = link_to(Broker(None, *[AWAY] * 5), max_retries=3)
    await link.connect()

    with pytest.raises(GiveUp):
        await link.lost(AWAY)

    assert "(3/3)" in caplog.text
    assert "tried 3 times. Shutting down..." in caplog.text


@pytest.mark.parametrize("most", [None, 0])
async def test_no_limit_is_no_limit(most: int | None) -> None:
    broker = Broker(*[AWAY] * 500, None)

    await link_to(broker, max_retries=most).connect()

    assert broker.attempts == 501


@pytest.mark.parametrize(
    ("policy", "answers", "said"),
    [
        ({"retry_on_startup": False}, [AWAY], "broker_connection_retry_on_startup=False"),
        ({"retry": False}, [None, AWAY], "broker_connection_retry=False"),
    ],
)
async def test_retrying_can_be_turned_off(
    policy: dict[str, bool],
    answers: list[TransportError | None],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    link = link_to(Broker(*answers), **policy)

    with pytest.raises(GiveUp):
        await lose(link)

    assert said in caplog.text


async def test_a_broker_that_fails_right_after_each_return_is_not_tried_at_full_speed() -> None:
    # Given a broker that takes us back every time and fails the first call every time
    broker = Broker(*itertools.repeat(None, 100))
    link = link_to(broker)
    await link.connect()

    # When everything fails for a second
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(lose(link, times=1000), 1.0)

    # Then that was three attempts and not thousands
    assert broker.attempts < 5


class SlowBroker(Broker):
    """Renews leases no sooner than it is told to."""

    caps = Caps(leases=True)

    def __init__(self) -> None:
        super().__init__(*itertools.repeat(None, 100))
        self.asked = asyncio.Event()
        self.answers_now = asyncio.Event()

    async def renew(self) -> None:
        await super().renew()
        if self.attempts > 1:
            self.asked.set()
            await self.answers_now.wait()


async def test_a_renewal_that_outlasts_our_certainty_counts_as_a_lapse() -> None:
    # Given a renewal that begins while the leases are certainly ours
    broker, regained = SlowBroker(), asyncio.Event()
    spec = ConsumeSpec(queues=(), node="one@host", lease_seconds=1.0)
    link = Link(cast("Transport", broker), spec, RetryPolicy(), regained.set)
    await link.connect()
    renewing = asyncio.create_task(link.renew())
    await broker.asked.wait()

    # When it is answered after what came in meanwhile was held back
    while link.sure:
        await asyncio.sleep(0.01)
    broker.answers_now.set()
    await renewing

    # Then somebody is told to go on with that
    assert regained.is_set()
