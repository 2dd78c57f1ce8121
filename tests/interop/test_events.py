"""Events between real Celery and ours: both hear both, and what they tell is the same, field by field."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from fleet import ANSWER_SECONDS, LOOK_SECONDS, MARKS, SIDES, Side, Site
from processes import Program

pytestmark = pytest.mark.timeout(400)  # the first test waits for real Celery to be installed

NODES: dict[Side, str] = {"real": "real@box", "ours": "ours@box"}
ETA = "2026-01-01T12:00:00+02:00"  # long past
CALLS = {
    "success": "add.apply_async((2, 3), queue=Q)",
    "failure": "fail.apply_async(('why', 1), queue=Q)",
    "retries": "flaky.apply_async((1,), queue=Q)",
    "no retry left": "impatient.apply_async(queue=Q)",
    "expired": f"add.apply_async((2, 3), queue=Q, expires='{ETA}')",
    "eta": f"add.apply_async((2, 3), queue=Q, eta='{ETA}')",
    "rejected": "refuses.apply_async(queue=Q)",
    "rejected too late": "refuses_too_late.apply_async(queue=Q)",
    "ignored": "steps_aside.apply_async(queue=Q)",
    "unregistered": "app.send_task('nobody.knows', queue=Q)",
    "of its own": "tells.apply_async(queue=Q)",
    "silent": "silent.apply_async(queue=Q)",
    "large": "give.apply_async(('x' * 5000,), queue=Q)",
}
# What differs from one run to the next; that it is there and of which kind is compared.
VOLATILE = {
    "clock",
    "timestamp",
    "local_received",
    "pid",
    "hostname",
    "runtime",
    "active",
    "processed",
    "loadavg",
}
OURS_ALONE = {"sw_ident", "sw_ver"}


class Fleet:
    """A worker of each side, on a queue of its own, with a client of each side that hears both."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.workers: dict[Side, Program] = {
            side: site.start(side, "-n", NODES[side], "-Q", side, "-E", quiet=False) for side in SIDES
        }
        for worker in self.workers.values():
            worker.wait_for(r" ready\.$")
        for side in SIDES:
            self.ask(side, "listen()")
            for node in NODES.values():
                self.wait_for(side, f"e['type'] == 'worker-heartbeat' and e['hostname'] == {node!r}")

    def ask(self, side: Side, expression: str) -> Any:
        """Evaluate an expression in a client."""
        return self.site.console(side)(expression)

    def wait_for(self, listener: Side, condition: str) -> list[dict[str, Any]]:
        """Return the events ``e`` that a client has heard and that meet a condition, once there are some."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not (found := self.ask(listener, f"[e for e in list(heard) if {condition}]")):
            assert time.monotonic() < deadline, f"nothing heard: {condition}"
            time.sleep(LOOK_SECONDS)
        events: list[dict[str, Any]] = found
        return events

    def story(self, listener: Side, worker: Side, call: str) -> list[dict[str, Any]]:
        """Run a task at a worker and return what a client has heard of it."""
        queue = f"queue={worker!r}"
        uuid = self.ask("real", call.replace("queue=Q", queue) + ".id")
        if "silent" not in call:
            ends = ("started",) if "steps_aside" in call or "refuses_too_late" in call else ENDS
            self.wait_for(listener, f"e.get('uuid') == {uuid!r} and e['type'].split('-')[1] in {ends!r}")
        # What was told before this one was heard before it.
        last = self.ask("real", f"add.apply_async((1, 1), {queue}).id")
        self.wait_for(listener, f"e.get('uuid') == {last!r} and e['type'] == 'task-succeeded'")
        return (
            self.wait_for(listener, f"e.get('uuid') == {uuid!r}")
            if "silent" not in call
            else [*self.ask(listener, f"[e for e in list(heard) if e.get('uuid') == {uuid!r}]")]
        )


ENDS = ("succeeded", "failed", "revoked", "rejected")


def on(broker: str) -> Any:
    return pytest.param(broker, marks=[*MARKS[broker], pytest.mark.together(f"events on {broker}")])


@pytest.fixture(scope="module")
def fleets() -> dict[str, Fleet]:
    return {}


@pytest.fixture(params=[on("redis"), on("rabbitmq")])
def fleet(
    request: pytest.FixtureRequest,
    make_site: Callable[[str], Site],
    sites: dict[tuple[str, ...], Site],
    fleets: dict[str, Fleet],
) -> Fleet:
    broker = request.param
    if broker not in fleets:
        site = sites[(broker,)] = make_site(broker)
        fleets[broker] = Fleet(site)
    return fleets[broker]


def comparable(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return events without what differs from one run to the next.

    They are put in an order: children and workers send theirs by themselves, and so in any.
    """
    uuid = events[0].get("uuid") if events else None
    told = [{name: _plain(name, value, uuid) for name, value in sorted(event.items())} for event in events]
    return sorted(told, key=lambda event: (event["type"], event.get("retries", 0)))


def written(events: list[dict[str, Any]]) -> list[list[str]]:
    """Return the fields of events in the order in which they were written."""
    return sorted((list(event) for event in events), key=str)


def _plain(name: str, value: Any, uuid: str | None) -> Any:
    if name in VOLATILE or (name == "eta" and value not in (None, ETA)):
        return type(value).__name__
    if name == "traceback":  # of the last line, as modules are named otherwise
        value = value.strip().splitlines()[-1].partition(":")[2]
    if uuid is None or not isinstance(value, str):
        return value
    return value.replace(uuid, "its own id")[:1000]  # real Celery's texts are a bit longer than it says


@pytest.mark.parametrize("listener", SIDES)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_both_tell_the_same_of_a_task(fleet: Fleet, listener: Side, call: str) -> None:
    real, ours = (fleet.story(listener, side, call) for side in SIDES)

    assert comparable(ours) == comparable(real)
    assert written(ours) == written(real)


@pytest.mark.parametrize("listener", SIDES)
def test_both_tell_the_same_of_themselves(fleet: Fleet, listener: Side) -> None:
    beats = [
        fleet.wait_for(
            listener, f"e['type'] == 'worker-heartbeat' and e['hostname'] == {node!r} and 'active' in e"
        )
        for node in NODES.values()
    ]

    real, ours = (comparable(heard[-1:])[0] for heard in beats)
    assert {name for name in real if real[name] != ours.get(name)} <= OURS_ALONE
    assert set(real) == set(ours)
