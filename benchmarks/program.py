"""The program that both sides run unchanged: plain Celery, nothing of ours in it."""

import os
import struct
import time

from celery import Celery

app = Celery("program", broker=os.environ["BENCH_BROKER"], backend=os.environ.get("BENCH_BACKEND") or None)
app.conf.broker_connection_retry_on_startup = True
app.conf.broker_transport_options = {"confirm_publish": os.environ.get("BENCH_CONFIRM") == "1"}

_MARKS = os.environ.get("BENCH_MARKS", "/dev/shm")
_file = (0, -1)  # pid, file descriptor


def mark(i: int) -> None:
    """Note that task i ran, now: 16 bytes appended to a file of this process."""
    global _file
    if _file[0] != os.getpid():
        fd = os.open(f"{_MARKS}/{os.getpid()}.bin", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        _file = (os.getpid(), fd)
    os.write(_file[1], struct.pack("<dq", time.monotonic(), i))


@app.task(name="bench.noop", ignore_result=True)
def noop(i):
    """Run without a result."""
    mark(i)


@app.task(name="bench.noop_with_result")
def noop_with_result(i):
    """Run with a result."""
    mark(i)
    return i + 1


@app.task(name="bench.increased")
def increased(i):
    """Return the next number, and leave no mark: the workflow's result says what ran."""
    return i + 1


@app.task(name="bench.summed")
def summed(numbers):
    """Be the body of a chord."""
    return [len(numbers), sum(numbers)]
