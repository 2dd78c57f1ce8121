"""The program of a peer, taskiq, and its client: ``taskiq_program.py fill JSON``.

Its lists are the fastest of its brokers: what a worker has taken is lost when that dies.
"""

import asyncio
import json
import os
import sys

from marks import SLEEP_SECONDS, mark
from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(url=os.environ["BENCH_BROKER"])


@broker.task(task_name="slept")  # type: ignore[untyped-decorator]  # taskiq is in its own environment only
async def slept(i: int) -> None:
    """Wait as a coroutine does."""
    await asyncio.sleep(SLEEP_SECONDS)
    mark(i)


async def fill(n: int) -> None:
    """Send n tasks one by one."""
    await broker.startup()
    for i in range(n):
        await slept.kiq(i)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(fill(json.loads(sys.argv[2])["n"]))
    print("{}")
