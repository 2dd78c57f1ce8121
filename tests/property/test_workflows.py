"""Random workflows end as the reference interpreter says, on a whole worker."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.app import Celeriac
from celeriac.testing.worker import start_worker
from job_factory import memory_app
from workflows.chance import Growth
from workflows.checks import differences, unready
from workflows.model import Call, Chain, Chord, Group, Node, interpret
from workflows.notation import described
from workflows.tasks import Tasks

AT_ONCE = 100  # in flight together
WORKFLOWS = 2_000
TIMEOUT_SECONDS = 60.0


class Site:
    """A worker, and what happens there.

    Args:
        app: Of the worker.
    """

    def __init__(self, app: Celeriac) -> None:
        self._app = app
        self._keys = itertools.count()
        self._noted = threading.Condition()
        self._seen: defaultdict[str, dict[str, Counter[str]]] = defaultdict(
            lambda: {"ran": Counter(), "called": Counter()}
        )
        self._tasks = Tasks(app, self._note)

    def check(self, nodes: list[Node]) -> None:
        """Run workflows, all at once, and check what has become of each."""
        sent = []
        for node in nodes:
            key = str(next(self._keys))
            sent.append((key, node, interpret(node), self._tasks.signature(node, key).apply_async()))
        for key, node, verdict, result in sent:
            told = _outcome(result)
            total = verdict.ran.total() + verdict.called.total()
            self._wait(lambda key=key, total=total: self._total(key) >= total)
            found = differences(verdict, told, self._seen[key], exact=True)
            self._wait(lambda result=result: not unready(result))
            found += [f"result {id} stays without state" for id in unready(result)]
            assert not found, f"{found} of {described(node)}"
        self._wait(self._is_idle)
        assert self._is_idle()
        for key, node, verdict, _ in sent:
            due = verdict.ran.total() + verdict.called.total()
            assert self._total(key) == due, f"too much ran of {described(node)}"

    def check_here(self, node: Node) -> None:
        """Run a workflow with `apply`, without the worker, and check what has become of it."""
        key = str(next(self._keys))
        told: tuple[Any, BaseException | None]
        try:
            told = self._tasks.signature(node, key).apply().get(), None
        except Exception as exc:
            told = None, exc
        found = differences(interpret(node, eager=True), told, self._seen[key], exact=True)
        assert not found, f"{found} of {described(node)}"

    def _note(self, key: str, what: str, label: str) -> None:
        with self._noted:
            self._seen[key][what][label] += 1
            self._noted.notify_all()

    def _total(self, key: str) -> int:
        return sum(counter.total() for counter in self._seen[key].values())

    def _is_idle(self) -> bool:
        store: Any = self._app.backend
        return not self._app.transport.size("celery") and not store._store.chords

    def _wait(self, condition: Any) -> None:
        """Wait for something, for as long as that can take; what has not come then is told by the checks."""
        end = time.monotonic() + TIMEOUT_SECONDS
        while not condition() and time.monotonic() < end:
            with self._noted:
                self._noted.wait(0.01)


def _outcome(result: Any) -> tuple[Any, BaseException | None]:
    try:
        return result.get(timeout=TIMEOUT_SECONDS), None
    except Exception as exc:
        return None, exc


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    app = memory_app()
    made = Site(app)
    with start_worker(app, pool="threads", concurrency=4):
        yield made
    app.close()


@pytest.mark.parametrize("first", range(0, WORKFLOWS, AT_ONCE))
def test_random_workflows_end_as_the_reference_interpreter_says(site: Site, first: int) -> None:
    site.check([Growth(Random(seed)).workflow() for seed in range(first, first + AT_ONCE)])


def test_what_50_000_random_workflows_have_found(site: Site) -> None:
    one, other, last = Call("one"), Call("other"), Call("last")
    replaced = Call("replaced", how="replace", instead=Group((Call("instead"),)))
    in_a_body = Chain((Chord((one,), other), replaced, Chord((Call("member"),), last)))
    group_of_one = Chain(
        (Group((one, other)), Chain((Call("inner"), Group((last,))), plain=True)), plain=True
    )
    site.check(
        [
            Chord((in_a_body,), Call("after")),  # was counted in another chord: nothing came after
            Chain((group_of_one, Chain((Call("then"), Call("on"))))),  # handed on a list of its value
        ]
    )


@pytest.mark.parametrize("first", range(0, WORKFLOWS, AT_ONCE))
def test_random_workflows_that_run_right_here_end_alike(site: Site, first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        site.check_here(Growth(Random(seed)).workflow())


def test_what_runs_right_here_differs_from_a_worker_by_what_raises_alone() -> None:
    for seed in range(WORKFLOWS):
        node = Growth(Random(seed), failing=False).workflow()
        sent, here = interpret(node), interpret(node, eager=True)

        assert (here.value, here.ran, here.called) == (sent.value, sent.ran, sent.called)


# The chance of Hypothesis: fewer workflows, but the one that fails is made as small as it can be.
@settings(max_examples=100, derandomize=True)
@given(chance=st.randoms(use_true_random=False))
def test_the_smallest_workflow_that_ends_otherwise_is_found(site: Site, chance: Random) -> None:
    site.check([Growth(chance).workflow()])
