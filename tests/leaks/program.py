"""The app of worker and client: tasks that succeed, fail from deep down, and try again.

The environment says where: LEAKS_BROKER and LEAKS_RESULTS.
"""

from __future__ import annotations

import os
from typing import Any

from celeriac.app import Celeriac

DEPTH = 60  # frames below a failing task
CAUSES = 6  # exceptions in its chain
RETRIES = 2

app = Celeriac(
    "leaks", broker=os.environ["LEAKS_BROKER"], backend=os.environ["LEAKS_RESULTS"], set_as_current=False
)
app.conf.update(
    # What runs when a connection is cut runs again: nothing that this run does excuses a lost call.
    task_acks_late=True,
    task_max_deliveries=0,
    broker_connection_retry_on_startup=True,
)


class TooDeep(Exception):
    """What deep failures end in."""


def sink(depth: int, cause: int) -> None:
    """Fail from deep down, with a chain of exceptions that each have a traceback of their own."""
    if depth:
        sink(depth - 1, cause)
    if not cause:
        raise TooDeep("the first cause")
    try:
        sink(DEPTH // CAUSES, cause - 1)
    except TooDeep as exc:
        raise TooDeep(f"cause {cause}") from exc


@app.task(name="leaks.succeed")
def succeed(number: int) -> int:
    """Return what came."""
    return number


@app.task(name="leaks.fail")
def fail(number: int) -> None:
    """Fail deep down."""
    sink(DEPTH, CAUSES)


@app.task(name="leaks.again", bind=True)
def again(self: Any, number: int) -> int:
    """Try again some times, at once or a moment later, and then return what came."""
    if self.request.retries < RETRIES:
        raise self.retry(countdown=0.05 * (number % 2))
    return number
