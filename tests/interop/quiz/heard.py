"""What a worker tells by signals: of messages that it does not run, and of its processes."""

import json
import time

from celery import Task, signals
from quiz.asking import question
from quiz.worker import BROKER, WAIT, app, give, store

TOLD = (
    *("task_received", "task_revoked", "task_unknown", "task_rejected", "worker_ready", "heartbeat_sent"),
    *("worker_before_create_process", "worker_process_init"),
)


def receiver_of(name):
    """Return what notes a signal: from whom, with which arguments, and in which form the request is."""

    def receiver(sender=None, signal=None, **facts):
        whose = sender.name if isinstance(sender, Task) else "nobody" if sender is None else "the worker"
        values = {key: value for key, value in facts.items() if isinstance(value, (bool, int))}
        request = facts.get("request")
        seen = type(request).__name__ if name == "task_revoked" else request is not None
        store().sadd("told", json.dumps([name, whose, sorted(facts), values, seen]))

    return receiver


for signal_name in TOLD:
    getattr(signals, signal_name).connect(receiver_of(signal_name), weak=False)


@question
def what_a_worker_tells():
    from kombu import Connection, Producer

    app.control.revoke("unwanted", reply=True, timeout=WAIT, limit=1)
    give.apply_async((1,), task_id="unwanted")
    give.apply_async((1,), expires=-5)
    app.send_task("not there")
    with Connection(BROKER) as connection:
        Producer(connection.channel()).publish({"no": "task"}, routing_key="celery", exchange="")
    assert give.delay(1).get(timeout=WAIT) == 1
    deadline = time.monotonic() + WAIT
    while True:
        told = sorted(map(json.loads, store().smembers("told")), key=repr)
        kinds = {line[0] for line in told}
        if (len(told) > len(TOLD) and kinds == set(TOLD)) or time.monotonic() > deadline:
            return told
        time.sleep(0.02)
