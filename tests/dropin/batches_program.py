"""A program with celery-batches: its tasks write down what they were given, and in which process."""

# The package is in a folder of its own, where the type checker does not find what makes these tasks.
# mypy: disallow-untyped-decorators=False

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from celery_batches import Batches, SimpleRequest  # type: ignore[import-not-found]  # in a folder of its own

from celery import Celery

app: Any = Celery("batches", broker=os.environ["BROKER"], backend=os.environ["RESULTS"])
DONE = Path(os.environ["DONE"])


def note(name: str, requests: list[SimpleRequest]) -> None:
    """Write down a batch."""
    line = {"batch": name, "args": [one.args[0] for one in requests], "pid": os.getpid(), "at": time.time()}
    with DONE.open("a") as file:
        file.write(json.dumps(line) + "\n")


@app.task(base=Batches, flush_every=4, flush_interval=3600)
def by_count(requests: list[SimpleRequest]) -> None:
    note("by_count", requests)
    for one in requests:
        app.backend.mark_as_done(one.id, one.args[0] * 2, request=one)


@app.task(base=Batches, flush_every=1000, flush_interval=0.2)
def by_interval(requests: list[SimpleRequest]) -> None:
    note("by_interval", requests)


@app.task(base=Batches, flush_every=2, flush_interval=3600, acks_late=True)
def late(requests: list[SimpleRequest]) -> None:
    note("late", requests)
    if "fails" in [one.args[0] for one in requests]:
        raise ValueError("of the batch")
    if "dies" in [one.args[0] for one in requests]:
        os._exit(3)


@app.task
def alone(value: Any) -> Any:
    """Not batched."""
    return value


if __name__ == "__main__":
    app.worker_main(sys.argv[1:])
