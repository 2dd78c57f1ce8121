"""What a state makes of events, in whatever order they come."""

from __future__ import annotations

import itertools
import pickle
import time
from typing import Any

import pytest

from celeriac.events.lru import LRUCache
from celeriac.events.state import State, Task, Worker, heartbeat_expires

Event = dict[str, Any]
_clock = itertools.count(1)
RECEIVED: Event = {
    "name": "add",
    "args": "(1, 2)",
    "kwargs": "{}",
    "retries": 0,
    "root_id": "t",
    "parent_id": None,
}


def of_task(kind: str, uuid: str = "t", hostname: str = "w1@h", **fields: Any) -> Event:
    now = time.time()
    common = {"hostname": hostname, "timestamp": now, "local_received": now, "clock": next(_clock)}
    return {**common, "type": f"task-{kind}", "uuid": uuid, **fields}


def of_worker(kind: str, hostname: str = "w1@h", **fields: Any) -> Event:
    event = of_task(kind, hostname=hostname, **{"freq": 2.0, **fields})
    del event["uuid"]
    return {**event, "type": f"worker-{kind}"}


def state_of(*events: Event) -> State:
    state = State()
    for event in events:
        state.event(event)
    return state


def test_a_task_is_followed() -> None:
    state = state_of(
        of_task("sent", hostname="gen1@h", queue="celery", **RECEIVED),
        of_task("received", **RECEIVED),
        of_task("started"),
        of_task("succeeded", result="3", runtime=0.5),
    )

    task = state.tasks["t"]
    assert (task.state, task.name, task.result, task.runtime) == ("SUCCESS", "add", "3", 0.5)
    assert (task.client, task.worker.hostname, task.ready) == ("gen1@h", "w1@h", True)
    assert task.sent <= task.received <= task.started <= task.succeeded
    assert (state.event_count, state.task_count) == (4, 1)


@pytest.mark.parametrize("order", list(itertools.permutations(("received", "started", "succeeded"))))
def test_the_order_of_events_does_not_matter(order: tuple[str, ...]) -> None:
    events = {
        "received": of_task("received", **RECEIVED),
        "started": of_task("started"),
        "succeeded": of_task("succeeded", result="3", runtime=0.5),
    }

    task = state_of(*(events[kind] for kind in order)).tasks["t"]

    assert (task.state, task.name, task.args, task.result) == ("SUCCESS", "add", "(1, 2)", "3")
    assert None not in (task.received, task.started, task.succeeded)


@pytest.mark.parametrize(
    ("known", "late", "state"),
    [
        ("failed", "started", "FAILURE"),
        ("succeeded", "failed", "SUCCESS"),
        ("revoked", "received", "REVOKED"),
        ("progress", "started", "PROGRESS"),  # of somebody's own: stronger than started
        ("started", "progress", "PROGRESS"),
        ("succeeded", "progress", "SUCCESS"),
        ("rejected", "received", "RECEIVED"),
        ("succeeded", "retried", "RETRY"),  # what is tried again begins anew
        ("retried", "received", "RECEIVED"),
    ],
)
def test_a_weaker_state_that_comes_late_changes_nothing(known: str, late: str, state: str) -> None:
    assert state_of(of_task(known), of_task(late)).tasks["t"].state == state


@pytest.mark.parametrize("missing", ["uuid", "hostname", "timestamp"])
def test_an_event_without_what_it_has_to_have_is_refused(missing: str) -> None:
    event = of_task("received", **RECEIVED)
    del event[missing]

    with pytest.raises(KeyError, match=missing):
        State().event(event)


def test_workers_come_live_and_leave() -> None:
    joined: list[Worker] = []
    left: list[Worker] = []
    state = State(on_node_join=joined.append, on_node_leave=left.append)

    state.event(of_worker("online", active=0, processed=7, loadavg=[1, 2, 3], sw_ident="x"))
    [worker] = state.alive_workers()
    assert (worker.processed, worker.freq, worker.status_string) == (7, 2.0, "ONLINE")
    state.event(of_worker("offline"))

    assert list(state.alive_workers()) == []
    assert joined == left == [worker]


def test_a_worker_that_is_silent_for_two_heartbeats_is_dead() -> None:
    before = time.time() - 4.1
    state = state_of(of_worker("heartbeat", local_received=before, timestamp=before))

    assert not state.workers["w1@h"].alive
    assert heartbeat_expires(100.0, freq=2.0) == 104.0


def test_the_event_of_a_task_is_a_sign_of_life() -> None:
    assert state_of(of_task("started")).workers["w1@h"].alive


def test_tasks_are_found_by_name_worker_and_time() -> None:
    state = state_of(
        *(of_task("received", uuid, **{**RECEIVED, "name": name}) for uuid, name in [("1", "a"), ("2", "b")]),
        of_task("received", "3", hostname="w2@h", **{**RECEIVED, "name": "a"}),
    )

    assert [uuid for uuid, _ in state.tasks_by_time()] == ["3", "2", "1"]
    assert [uuid for uuid, _ in state.tasks_by_time(limit=1, reverse=False)] == ["1"]
    assert [uuid for uuid, _ in state.tasks_by_type("a")] == ["3", "1"]
    assert {task.uuid for task in state.tasks_by_type["a"]} == {"1", "3"}
    assert [uuid for uuid, _ in state.tasks_by_worker("w1@h")] == ["2", "1"]
    assert state.task_types() == ["a", "b"]


def test_families_are_known() -> None:
    state = state_of(of_task("received", "1"), of_task("received", "2", parent_id="1", root_id="1"))

    child, parent = state.tasks["2"], state.tasks["1"]
    assert child.parent is child.root is parent
    assert parent.children == {child}
    assert child.as_dict()["parent"] == "1"
    assert parent.as_dict()["children"] == ["2"]


def test_the_oldest_tasks_are_forgotten() -> None:
    state = State(max_tasks_in_memory=3)
    for number in range(10):
        state.event(of_task("received", str(number), **RECEIVED))

    assert list(state.tasks) == ["7", "8", "9"]


def test_a_state_survives_being_pickled() -> None:
    state = state_of(
        of_worker("online"),
        of_task("received", "1", **RECEIVED),
        of_task("received", "2", **{**RECEIVED, "parent_id": "1"}),
    )

    kept: State = pickle.loads(pickle.dumps(state))

    assert kept.tasks["1"].name == "add"
    assert kept.tasks["2"].parent is kept.tasks["1"]
    assert kept.tasks.limit == 10000
    assert kept.task_types() == ["add"]
    kept.event(of_task("succeeded", "1", result="3"))
    assert kept.tasks["1"].state == "SUCCESS"


def test_what_has_ended_is_cleared() -> None:
    state = state_of(of_task("succeeded", "1", **RECEIVED), of_task("received", "2", **RECEIVED))

    state.clear_tasks()

    assert list(state.tasks) == ["2"]
    assert {task.uuid for task in state.tasks_by_type["add"]} == {"2"}


def test_other_groups_have_handlers_of_their_own() -> None:
    state = State()
    state.handlers["machine"] = lambda event: event["heat"]

    assert state.event({"type": "machine-hot", "heat": 90}) == (90, "hot")
    assert state.event({"type": "nobody-knows"}) is None


def test_subclasses_make_workers_and_tasks_of_their_own() -> None:
    class Mine(Task):
        pass

    class Own(State):
        Task = Mine

    state = Own()
    state.event(of_task("received", **RECEIVED))

    assert type(state.tasks["t"]) is Mine


def test_a_cache_forgets_what_was_used_least_recently() -> None:
    cache: LRUCache[str, int] = LRUCache(2)
    cache["a"], cache["b"] = 1, 2
    assert cache["a"] == 1
    cache["c"] = 3

    assert dict(cache.data) == {"a": 1, "c": 3}
    cache.limit = 1
    cache.update()
    assert list(cache) == ["c"]
