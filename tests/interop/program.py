"""A Celery program that runs unchanged under real Celery and under ours, as a worker and as a client.

Nothing here depends on which of the two it is; `SIDE` tells the tests who has run a task.
"""

import os
import sys
import time
from pathlib import Path

from kombu import Exchange, Queue

from celery import Celery
from celery.exceptions import Ignore, Reject

SIDE = "ours" if "celeriac" in sys.modules else "real"
FOLDER = Path(os.environ["PROGRAM_FOLDER"])  # where tasks write what the tests read

app = Celery("program", broker=os.environ["PROGRAM_BROKER"], backend=os.environ["PROGRAM_RESULTS"])
app.conf.update(
    accept_content=["json", "yaml", "msgpack", "pickle"],
    result_serializer=os.environ.get("PROGRAM_RESULT_SERIALIZER", "json"),
    result_extended=True,
    task_queues=[
        Queue("celery"),
        Queue("ranked", Exchange("ranked"), routing_key="ranked", max_priority=9),
        *(Queue(name, Exchange(name), routing_key=name) for name in ("real", "ours")),
    ],
    worker_prefetch_multiplier=1,
    worker_lease_seconds=2.0,  # ours only
    broker_connection_retry_on_startup=True,
)

if os.environ.get("PROGRAM_QUEUE_TYPE") == "quorum":
    app.conf.task_queues = [
        Queue(name, Exchange(name, "topic"), routing_key=name, queue_arguments={"x-queue-type": "quorum"})
        for name in ("celery", "real", "ours")
    ]


class CustomError(Exception):
    pass


# --- values -------------------------------------------------------------------------------------------


@app.task
def add(x, y):
    return x + y


@app.task
def mul(x, y):
    return x * y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def give(value):
    return value


@app.task
def kind(value):
    """Tell what has arrived without sending it back through a serializer."""
    return repr(value)


@app.task
def clock():
    return time.time()


@app.task(bind=True)
def echo(self, *args, **kwargs):
    """Return what a task is told about its own call."""
    request = self.request
    names = (
        "id", "root_id", "parent_id", "group", "group_index", "retries", "timelimit", "correlation_id",
        "shadow", "ignore_result", "stamps", "stamped_headers", "argsrepr", "kwargsrepr", "delivery_info",
        "headers", "expires", "eta", "hostname", "replaced_task_nesting", "is_eager", "called_directly",
    )  # fmt: skip
    return {
        "args": list(args),
        "kwargs": kwargs,
        "mine": getattr(request, "mine", None),
        **{name: getattr(request, name) for name in names},
    }


@app.task
def sends_for_later(queue, countdown, again=None, count=1):
    """Send calls of `moment` and return their ids."""
    return [moment.apply_async((again,), queue=queue, countdown=countdown).id for _ in range(count)]


@app.task(bind=True)
def moment(self, again=None):
    """Tell when it runs and how it got there, after a retry when seconds are given."""
    if again is not None and not self.request.retries:
        raise self.retry(countdown=again)
    info, headers = self.request.delivery_info, self.request.headers or {}
    return [time.time(), SIDE, info["exchange"], info["routing_key"], "x-death" in headers]


# --- what goes wrong ------------------------------------------------------------------------------------


@app.task
def fail(*args):
    raise CustomError(*args)


@app.task
def unserializable():
    return open(os.devnull)  # no serializer has a form for it


@app.task(bind=True, max_retries=3)
def flaky(self, until):
    """Fail until a retry, and return which one it was."""
    if self.request.retries < until:
        raise self.retry(exc=CustomError("not yet"), countdown=0.05)
    return self.request.retries


@app.task(autoretry_for=(CustomError,), retry_backoff=False, default_retry_delay=0, max_retries=2)
def hopeless():
    raise CustomError("never")


@app.task(bind=True, max_retries=0)
def impatient(self):
    raise self.retry(countdown=0)


@app.task(time_limit=1)
def too_slow():
    time.sleep(60)


@app.task(soft_time_limit=0.5)
def slow():
    time.sleep(60)


@app.task(acks_late=True)
def refuses():
    raise Reject("because", requeue=False)


@app.task
def refuses_too_late():
    raise Reject("because", requeue=False)


@app.task
def steps_aside():
    raise Ignore


@app.task(bind=True)
def tells(self):
    """Tell monitors something of one's own."""
    self.send_event("task-progress", done=50)


@app.task
def give_time(seconds):
    time.sleep(seconds)


@app.task(send_events=False)
def silent():
    return None


# --- workflows --------------------------------------------------------------------------------------------


@app.task(bind=True)
def becomes(self, x, y):
    """Let another task take its place."""
    raise self.replace(add.s(x, y))


@app.task(bind=True)
def becomes_a_chain(self, x, y):
    raise self.replace(add.s(x, y) | mul.s(2))


@app.task(bind=True)
def becomes_a_group(self, *numbers):
    from celery import group

    raise self.replace(group(add.s(number, 1) for number in numbers))


@app.task(bind=True)
def grows(self, *values):
    """Add a part to its chord for each value, run by whoever takes it."""
    for value in values:
        self.add_to_chord(add.s(value, 0))
    return 0


@app.task
def starts_another(x):
    return add.delay(x, 1).id


# --- what the tests see -----------------------------------------------------------------------------------


def write(name, *values):
    with (FOLDER / name).open("a") as file:
        file.write(" ".join(map(str, values)) + "\n")


@app.task
def note(*values, to):
    """Append a line to a file."""
    write(to, *values)


@app.task(ignore_result=True)
def quiet(to):
    write(to, "ran")
    return "nobody hears this"


@app.task
def told_id(task_id, *, to):
    """Errback of the old kind: gets the id."""
    write(to, task_id)


@app.task
def told_error(request, exc, traceback, to):
    """Errback of the new kind: called where the task has failed."""
    write(to, request.id, type(exc).__name__, *exc.args)


@app.task
def where(number, to, seconds=0.0):
    """Tell who has run this, after a while."""
    time.sleep(seconds)
    write(to, number, SIDE)
    return SIDE


@app.task
def where_all(sides, to):
    write(to, "body", SIDE)
    return sorted(sides)


@app.task(bind=True)
def half_way(self, name):
    """Store a state of one's own, and wait until the test goes on; the file is a named pipe."""
    self.update_state(state="HALF", meta={"done": 50})
    (FOLDER / name).read_text()
    return "done"


@app.task(bind=True, acks_late=True)
def gate(self, name):
    """Tell that it has begun, and wait until it is opened: two named pipes."""
    (FOLDER / f"{name}.begun").write_text("again" if self.request.delivery_info["redelivered"] else "first")
    (FOLDER / f"{name}.open").read_text()
    write(name, SIDE)
    return SIDE
