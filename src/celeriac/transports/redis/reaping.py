"""Taking over from dead nodes without being a worker."""

from __future__ import annotations

import asyncio

from celeriac.transports.redis.consumer import RedisConsumer


def reap(consumer: RedisConsumer) -> int:
    """Have a consumer without queues take over what can go back, and return how many messages that were.

    What had begun stays with the dead until a worker of its queue tells that it is lost: only that knows
    where results are kept, and what follows from a failure.

    Args:
        consumer: Not yet opened; it is closed in the end.

    Raises:
        TransportError: The server cannot be reached.
    """
    return asyncio.run(_reap(consumer))


async def _reap(consumer: RedisConsumer) -> int:
    try:
        await consumer.open()
        pause = await consumer.pause_before_reaping()
        if pause > 0:
            await asyncio.sleep(pause)
            await consumer.renew()
        return consumer.taken_back
    finally:
        await consumer.close()
