"""The program of a peer, dramatiq, and its client: ``dramatiq_program.py OPERATION JSON``.

It acknowledges late, and runs again what fails.
"""

import json
import os
import sys
import time
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from marks import SLEEP_SECONDS, burn, mark, mark_beginning
from reference import reference

broker = RedisBroker(url=os.environ["BENCH_BROKER"])
dramatiq.set_broker(broker)


@dramatiq.actor
def slept(i):
    """Wait, as for a slow server."""
    time.sleep(SLEEP_SECONDS)
    mark(i)


@dramatiq.actor
def burnt(i):
    """Keep a processor busy."""
    mark_beginning(i)
    burn()
    mark(i)


def fill(kind, n):
    """Send n tasks one by one."""
    actor = broker.get_actor(kind)
    began = time.perf_counter()
    for i in range(n):
        actor.send(i)
    return {"delay_per_s": n / (time.perf_counter() - began)}


if __name__ == "__main__":
    operations: dict[str, Any] = {"fill": fill, "reference": reference}
    print(json.dumps(operations[sys.argv[1]](**json.loads(sys.argv[2]))))
