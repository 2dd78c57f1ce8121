"""Remote control between real Celery and ours: both answer both, in the same form."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from fleet import ANSWER_SECONDS, MARKS, SIDES, Side, Site
from processes import Program

pytestmark = pytest.mark.timeout(400)  # the first test waits for real Celery to be installed

NODES: dict[Side, str] = {"real": "real@box", "ours": "ours@box"}
LARGE = "timeout=60, limit=2"
VALUES_OF_CELERYS_OWN = {  # keys that tell of something that the other side has not
    "conf": {"deprecated_settings", "include", "worker_disable_prefetch"},
    "stats": {"total", "rusage", "timeouts"},
}


class Fleet:
    """A site with one worker of each side, on one queue and each on one of its own."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.workers: dict[Side, Program] = {}
        for side in SIDES:
            self.workers[side] = site.start(side, "-n", NODES[side], "-Q", f"celery,{side}")
        for worker in self.workers.values():
            worker.wait_for(r" ready\.$")
        deadline = time.monotonic() + ANSWER_SECONDS  # real Celery says "ready" some moments too early
        while len(self.ask("real", "app.control.inspect(timeout=2, limit=2).ping() or {}")) < 2:
            assert time.monotonic() < deadline, "not both answer"
        self.ask("real", "app.control.revoke('known-to-both', reply=True, timeout=60, limit=2)")

    def ask(self, side: Side, expression: str) -> Any:
        """Evaluate an expression in a client."""
        return self.site.console(side)(expression)


def on(broker: str) -> Any:
    return pytest.param(broker, marks=[*MARKS[broker], pytest.mark.together(f"control on {broker}")])


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


def form(value: Any) -> Any:
    """Return the form of a value: the keys of dicts and what lists consist of, without the values."""
    if isinstance(value, dict):
        return {key: form(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [form(value[0])] if value else []
    return type(value).__name__


@pytest.mark.parametrize("client", SIDES)
@pytest.mark.parametrize(
    "question",
    [
        "ping()", "clock()", "stats()", "active()", "reserved()", "scheduled()", "revoked()",
        "active_queues()", "registered()", "registered('acks_late')", "query_task('nobody')",
        "report()", "conf()",
    ],
)  # fmt: skip
def test_both_answer_in_the_same_form(fleet: Fleet, client: Side, question: str) -> None:
    answers = fleet.ask(client, f"app.control.inspect({LARGE}).{question}")

    assert set(answers) == set(NODES.values())
    real, ours = (answers[NODES[side]] for side in SIDES)
    name = question.partition("(")[0]
    for key in VALUES_OF_CELERYS_OWN.get(name, ()):
        real.pop(key, None), ours.pop(key, None)
    if name in ("registered", "active_queues", "ping"):
        for answer in (real, ours):
            if name == "active_queues":
                answer[:] = [queue for queue in answer if queue["name"] == "celery"]
        assert ours == real
    assert form(ours) == form(real)


@pytest.mark.parametrize("client", SIDES)
@pytest.mark.parametrize(
    "command",
    [
        "rate_limit('program.quiet', '10/m'", "rate_limit('program.quiet', 0", "rate_limit('nobody', '1/s'",
        "rate_limit('program.quiet', 'often'",
        "time_limit('program.quiet', soft=5, hard=9", "time_limit('nobody', soft=5",
        "autoscale(3, 1", "pool_restart(",
        "add_consumer('another'", "cancel_consumer('another'",
        "revoke('some-id'", "revoke(['some-id'], terminate=True", "terminate('some-id', signal='KILL'",
        "revoke_by_stamped_headers({'mine': ['x']}", "broadcast('nosuch'",
    ],
)  # fmt: skip
def test_both_do_what_they_are_told_and_say_the_same(fleet: Fleet, client: Side, command: str) -> None:
    separator = "" if command.endswith("(") else ", "
    replies = fleet.ask(client, f"app.control.{command}{separator}reply=True, timeout=60, limit=2)")

    answers = {node: answer for reply in replies for node, answer in reply.items()}
    assert answers[NODES["ours"]] == answers[NODES["real"]]


@pytest.mark.parametrize("client", SIDES)
@pytest.mark.parametrize("worker", SIDES)
def test_a_running_task_looks_the_same_and_is_ended(fleet: Fleet, client: Side, worker: Side) -> None:
    name = fleet.site.name()
    begun = fleet.site.pipe(f"{name}.begun")
    fleet.site.pipe(f"{name}.open")
    expression = f"keep({name!r}, gate.apply_async(({name!r},), queue={worker!r})).id"
    task_id = fleet.ask(client, expression)
    assert begun.read_text() == "first"

    node = NODES[worker]
    [info] = fleet.ask(client, f"app.control.inspect([{node!r}], timeout=60).active()")[node]
    asked = fleet.ask(client, f"app.control.inspect([{node!r}], timeout=60).query_task({task_id!r})")[node]
    safe = fleet.ask(client, f"app.control.inspect([{node!r}], timeout=60).active(safe=True)")[node]
    ended = fleet.ask(
        client,
        f"app.control.terminate({task_id!r}, [{node!r}], signal='SIGKILL', reply=True, timeout=60)",
    )

    assert info.pop("time_start") > 0
    assert info.pop("worker_pid") > 0
    info["delivery_info"].pop("priority")  # real Celery tells None for one that it tells as 0 elsewhere
    assert info == {
        "id": task_id,
        "name": "program.gate",
        "args": [name],
        "kwargs": {},
        "type": "program.gate",
        "hostname": node,
        "acknowledged": False,
        "delivery_info": {"exchange": "", "routing_key": worker, "redelivered": False},
    }
    assert asked[task_id][0] == "active"
    assert (safe[0]["args"], safe[0]["kwargs"]) == (repr((name,)), "{}")
    assert ended == [{node: {"ok": f"terminate: {task_id}"}}]
    error = fleet.ask(client, f"error(kept[{name!r}])")
    assert error == ["TaskRevokedError", "terminated"]


@pytest.mark.parametrize("client", SIDES)
@pytest.mark.parametrize("worker", SIDES)
def test_a_task_that_waits_is_revoked(fleet: Fleet, client: Side, worker: Side) -> None:
    name = fleet.site.name()
    expression = (
        f"keep({name!r}, note.apply_async(('ran',), {{'to': {name!r}}}, queue={worker!r}, countdown=1))"
    )
    fleet.ask(client, f"{expression}.id")

    fleet.ask(client, f"kept[{name!r}].revoke()")

    assert fleet.ask(client, f"error(kept[{name!r}])") == ["TaskRevokedError", "revoked"]
    after = fleet.site.name()
    fleet.ask(client, f"note.apply_async(('ran',), {{'to': {after!r}}}, queue={worker!r}, countdown=2).id")
    assert fleet.site.lines(after) == ["ran"]
    assert not (fleet.site.folder / name).exists()


def test_a_rate_limit_is_kept_by_both(fleet: Fleet) -> None:
    for worker in SIDES:
        name = fleet.site.name()
        fleet.ask("real", "app.control.rate_limit('program.where', '2/s', reply=True, timeout=60, limit=2)")
        began = time.monotonic()
        for number in range(3):
            fleet.ask("ours", f"where.apply_async(({number}, {name!r}), queue={worker!r}).id")
        fleet.site.lines(name, 3)
        took = time.monotonic() - began
        fleet.ask("real", "app.control.rate_limit('program.where', 0, reply=True, timeout=60, limit=2)")

        # Real Celery's third one was seen to come 0.15 s early on a busy machine.
        assert took >= (0.95 if worker == "ours" else 0.75), worker


def test_slots_come_and_go(fleet: Fleet) -> None:
    grown = fleet.ask("real", "app.control.pool_grow(2, reply=True, timeout=60, limit=2)")
    shrunk = fleet.ask("ours", "app.control.pool_shrink(1, reply=True, timeout=60, limit=2)")

    nodes = sorted(NODES.values())
    assert sorted(node for reply in grown for node in reply) == nodes
    assert all(answer == {"ok": "pool will grow"} for reply in grown for answer in reply.values())
    assert all(answer == {"ok": "pool will shrink"} for reply in shrunk for answer in reply.values())
    stats = fleet.ask("real", f"app.control.inspect({LARGE}).stats()")
    assert stats[NODES["ours"]]["pool"]["max-concurrency"] == 3


def test_real_celery_greets_our_worker(fleet: Fleet) -> None:
    """Its mingle asks who is there and which tasks are revoked."""
    fleet.ask("real", "app.control.revoke('known-to-ours', destination=['ours@box'], reply=True, timeout=60)")

    greeting = fleet.ask(
        "real", "app.control.inspect(['ours@box'], timeout=60).hello('new@box', revoked={'from-new': 1.5})"
    )["ours@box"]
    known = fleet.ask("real", "app.control.inspect(['ours@box'], timeout=60).revoked()")["ours@box"]

    assert isinstance(greeting["clock"], int)
    [moment, task_id] = greeting["revoked"]["known-to-ours"]
    assert isinstance(moment, float)
    assert task_id == "known-to-ours"
    assert "from-new" in known
