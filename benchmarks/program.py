"""The program that both sides run unchanged: plain Celery, nothing of ours in it."""

import asyncio
import os
import time

from marks import SLEEP_SECONDS, burn, mark, mark_beginning

from celery import Celery

app = Celery("program", broker=os.environ["BENCH_BROKER"], backend=os.environ.get("BENCH_BACKEND") or None)
app.conf.broker_connection_retry_on_startup = True
app.conf.broker_transport_options = {"confirm_publish": os.environ.get("BENCH_CONFIRM") == "1"}
if os.environ.get("BENCH_PRIORITIES") == "1":
    app.conf.task_queue_max_priority = 9  # RabbitMQ's queues have none otherwise


@app.task(name="bench.noop", ignore_result=True)
def noop(i):
    """Run without a result."""
    mark(i)


@app.task(name="bench.noop_with_result")
def noop_with_result(i):
    """Run with a result."""
    mark(i)
    return i + 1


@app.task(name="bench.slept", ignore_result=True)
def slept(i):
    """Wait, as for a slow server."""
    time.sleep(SLEEP_SECONDS)
    mark(i)


@app.task(name="bench.awaited", ignore_result=True)
async def awaited(i):
    """Wait as a coroutine does."""
    await asyncio.sleep(SLEEP_SECONDS)
    mark(i)


@app.task(name="bench.burnt", ignore_result=True)
def burnt(i):
    """Keep a processor busy."""
    mark_beginning(i)
    burn()
    mark(i)


@app.task(name="bench.brief", ignore_result=True)
def brief(i):
    """Take a moment, so that a queue does not end at once."""
    time.sleep(0.002)
    mark(i)


@app.task(name="bench.increased")
def increased(i):
    """Return the next number, and leave no mark: the workflow's result says what ran."""
    return i + 1


@app.task(name="bench.summed")
def summed(numbers):
    """Be the body of a chord."""
    return [len(numbers), sum(numbers)]
