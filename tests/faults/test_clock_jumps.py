"""A wall clock that jumps, forward or back, neither rescues what is in good hands nor keeps what is not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.message import Ack
from celeriac.ports import Consumer, ConsumeSpec, Transport
from celeriac.queues import Queue
from celeriac.testing.conformance.fixtures import ack, nothing_arrives, take
from celeriac.testing.conformance.leases import renewing
from celeriac.testing.conformance.messages import new_queue, texts, to_queue
from celeriac.transports import connect
from faults.wall_clock import WallClock
from processes import Program, celery
from redis_probe import command
from worker_program import until

HOUR = 3600
LEASE_SECONDS = 3.0  # of whole workers: who stalls for longer on a busy machine would spoil the test
TASKS = """
import time
from pathlib import Path
from celeriac import Celeriac

app = Celeriac("tasks", broker="sqlite:///{folder}/q.db", backend="sqlite:///{folder}/q.db",
    worker_lease_seconds={lease}, task_acks_late=True,
    task_reject_on_worker_lost=True, worker_prefetch_multiplier=1)
folder = Path("{folder}")

@app.task(bind=True)
def wait(self, name):
    with (folder / "runs").open("a") as file:
        file.write(f"{{name}} {{self.request.delivery_info['redelivered']}}\\n")
    while not (folder / "go").exists():
        time.sleep(0.02)
    return name
"""


# The clock of Redis jumps: the same as if all that is compared with it jumped the other way. (The real thing
# cannot be had: its allocator asks for the time before libfaketime is ready.)
JUMP = """
for _, id in ipairs(redis.call('ZRANGE', 'celeriac.nodes', 0, -1)) do
  redis.call('ZINCRBY', 'celeriac.nodes', -ARGV[1], id)
end
for _, field in ipairs(redis.call('HKEYS', 'celeriac.outage')) do
  redis.call('HINCRBYFLOAT', 'celeriac.outage', field, -ARGV[1])
end
"""


def redis_jumps(url: str, seconds: int) -> None:
    command(url, "EVAL", JUMP, 0, seconds)


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path)


@contextlib.asynccontextmanager
async def consuming(transport: Transport, queue: Queue, node: str) -> AsyncIterator[Consumer]:
    """Consume with a lease of a second that is renewed."""
    consumer = await transport.consumer(ConsumeSpec(queues=(queue,), node=node, lease_seconds=1.0))
    async with renewing(consumer):
        yield consumer
    await consumer.close()


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["forward", "back"])
async def test_a_redis_whose_clock_jumps_takes_nothing_from_the_living(redis_url: str, seconds: int) -> None:
    transport, queue = connect(redis_url), new_queue()
    producer = transport.producer()
    producer.send([to_queue(queue, "held")], deadline=10)

    async with consuming(transport, queue, "one@test") as one:
        held = await take(one, 1)
        async with consuming(transport, queue, "two@test") as two:
            redis_jumps(redis_url, seconds)
            await asyncio.sleep(3.0)  # three leases

            assert await nothing_arrives(two)
        await ack(one, held)
        assert await nothing_arrives(one)
    producer.close()
    transport.close()


async def test_a_node_that_died_before_the_clock_of_redis_was_set_back_is_inherited_in_time(
    redis_url: str,
) -> None:
    transport, queue = connect(redis_url), new_queue()
    producer = transport.producer()
    producer.send([to_queue(queue, "inherited")], deadline=10)
    dead = await transport.consumer(ConsumeSpec(queues=(queue,), node="dead@test", lease_seconds=1.0))
    await take(dead, 1)

    async with consuming(transport, queue, "heir@test") as heir:
        redis_jumps(redis_url, -HOUR)
        [got] = await take(heir, 1)
        await heir.settle([(got, Ack())])

    assert (texts([got]), got.redelivered) == (["inherited"], True)
    await dead.close()
    producer.close()
    transport.close()


def test_workers_on_the_embedded_broker_do_not_mind_a_wall_clock_that_jumps(
    clock: WallClock, tmp_path: Path
) -> None:
    (tmp_path / "tasks.py").write_text(TASKS.format(folder=tmp_path, lease=LEASE_SECONDS))
    environment = clock.environment(tmp_path)
    app = Celeriac("tasks", broker=f"sqlite:///{tmp_path}/q.db", backend=f"sqlite:///{tmp_path}/q.db")
    options = ("-A", "tasks", "worker", "-c", "1", "-l", "INFO")
    with contextlib.ExitStack() as stack:
        for name in ("one", "two"):
            command = celery(*options, "-n", f"{name}@test")
            program = stack.enter_context(Program(command, cwd=tmp_path, env=environment))
            program.wait_for("ready")
        stack.callback(app.close)
        results = [app.send_task("tasks.wait", (name,)) for name in ("a", "b")]
        runs = tmp_path / "runs"
        until(lambda: runs.exists() and len(runs.read_text().splitlines()) == 2)

        for seconds in (HOUR, -HOUR):
            clock.jump(seconds)
            time.sleep(1.5 * LEASE_SECONDS)  # nothing may happen in it
        (tmp_path / "go").touch()

        assert [result.get(timeout=60) for result in results] == ["a", "b"]
        assert sorted(runs.read_text().splitlines()) == ["a False", "b False"]
