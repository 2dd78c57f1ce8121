"""A client of the program: evaluates the expressions that it reads, line by line, and answers in JSON.

Runs under real Celery and under ours. An expression sees everything of `program` and of this file.
"""

import datetime  # noqa: F401 - for expressions, like all that is not used below
import json
import os
import sys
import threading
import time  # noqa: F401
import uuid  # noqa: F401
from decimal import Decimal  # noqa: F401

import program

from celery import Celery, chain, chord, group, signature  # noqa: F401
from celery.result import AsyncResult, GroupResult  # noqa: F401

TIMEOUT = 60

# A client of protocol 1.
old = Celery(
    "old",
    broker=os.environ["PROGRAM_BROKER"],
    backend=os.environ["PROGRAM_RESULTS"],
    set_as_current=False,
    task_protocol=1,
    result_serializer=program.app.conf.result_serializer,
    accept_content=program.app.conf.accept_content,
)
kept: dict[str, object] = {}  # from one expression to the next


def keep(name, value):
    kept[name] = value
    return value


def get(result):
    return result.get(timeout=TIMEOUT)


def save(result):
    """Keep a group's shape in the result store and return its id."""
    result.save()
    return result.id


def error(result):
    """Return the class and the arguments of what a task has failed with."""
    exc = result.get(timeout=TIMEOUT, propagate=False)
    assert isinstance(exc, BaseException), repr(exc)
    return [type(exc).__name__, *exc.args]


def told(result):
    """Return what is stored of a task beside its value, once it is ready."""
    result.get(timeout=TIMEOUT, propagate=False)
    names = ("state", "traceback", "name", "args", "kwargs", "worker", "retries", "queue")
    return {
        **{name: getattr(result, name) for name in names},
        "children": [child.id for child in result.children or ()],
        "done": result.date_done is not None,
    }


heard = []


def listen():
    """Hear events from now on: in `heard`."""

    def hear():
        with program.app.connection() as connection:
            receiver = program.app.events.Receiver(connection, handlers={"*": heard.append})
            receiver.capture(limit=None, timeout=None, wakeup=True)

    threading.Thread(target=hear, daemon=True).start()


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print must not be taken for an answer
    namespace = {**vars(program), **globals()}
    for line in sys.stdin:
        try:
            answer = {"value": eval(json.loads(line), namespace)}
        except Exception as exc:
            answer = {"error": f"{type(exc).__module__}.{type(exc).__qualname__}: {exc}"}
        answers.write(json.dumps(answer, default=repr) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
