"""Stamps and priority stay with every call of a random workflow: over retry, chords, callbacks, errbacks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import pytest

from celeriac.app import Celeriac
from celeriac.canvas import StampingVisitor
from celeriac.testing.worker import start_worker
from job_factory import memory_app
from workflows.chance import Growth
from workflows.model import Node, calls_in, interpret
from workflows.notation import described
from workflows.tasks import Tasks

WORKFLOWS = 200
TIMEOUT_SECONDS = 60.0
PRIORITY = 5


class Told(NamedTuple):
    """What the message of a call said."""

    label: str
    stamps: Any
    priority: int | None


class ByLabel(StampingVisitor):
    """Stamps each call with its own label."""

    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """Return the stamp."""
        return {"mark": sig.kwargs["label"]}


class Site:
    """A worker whose tasks tell what their messages said.

    Args:
        app: Of the worker.
    """

    def __init__(self, app: Celeriac) -> None:
        self._app = app
        self._noted = threading.Condition()
        self._told: list[Told] = []
        self._tasks = Tasks(app, self._note)

    def run(self, node: Node) -> list[Told]:
        """Run a workflow, stamped and with a priority, and return what its calls tell."""
        verdict = interpret(node)
        due = verdict.ran.total() + verdict.called.total()
        signature = self._tasks.signature(node, "")
        signature.stamp(ByLabel())
        with self._noted:
            self._told = []
        signature.apply_async(priority=PRIORITY)
        end = time.monotonic() + TIMEOUT_SECONDS
        with self._noted:
            self._noted.wait_for(lambda: len(self._told) >= due, end - time.monotonic())
            return self._told

    def _note(self, key: str, what: str, label: str) -> None:
        request = self._app.current_worker_task.request
        with self._noted:
            self._told.append(Told(label, request.stamps, request.delivery_info["priority"]))
            self._noted.notify_all()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    app = memory_app(task_inherit_parent_priority=True)
    made = Site(app)
    with start_worker(app, pool="threads", concurrency=4):
        yield made
    app.close()


def test_stamps_and_priority_stay_with_every_call(site: Site) -> None:
    for seed in range(WORKFLOWS):
        node = Growth(Random(seed)).workflow()

        told = site.run(node)

        verdict = interpret(node)
        assert Counter(one.label for one in told) == verdict.ran + verdict.called, described(node)
        assert {one.priority for one in told} <= {PRIORITY}, described(node)
        stamped = _stamped(node)
        wrong = [one for one in told if one.label in stamped and one.stamps != {"mark": one.label}]
        assert not wrong, described(node)


def _stamped(node: Node) -> set[str]:
    """Return the labels of what has a message with a stamp of its own.

    A call that replaces another is made later; an errback that takes the exception has no message.
    """
    later = {inner.label for call in calls_in(node) if call.instead for inner in calls_in(call.instead)}
    calls = [call for call in calls_in(node) if call.label not in later]
    linked = {label for call in calls for label in (*call.links, *call.errbacks)}
    return {call.label for call in calls} | {label for label in linked if not label.startswith("new")}
