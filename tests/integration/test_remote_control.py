"""Workers asked and steered from afar, on every broker and with every pool."""

from __future__ import annotations

import datetime
import threading
import time
import uuid
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.control.panel import Panel
from celeriac.control.state import State
from celeriac.errors import SoftTimeLimitExceeded, TaskRevokedError
from celeriac.message import Broadcast, Envelope, Props
from celeriac.node import intake
from celeriac.testing.worker import start_worker
from celeriac.wire.control import Terms
from job_factory import memory_app
from worker_program import until

TIMEOUT = 60.0
NODE = "w1@here"


@pytest.fixture
def app(everywhere: Celeriac) -> Celeriac:
    @everywhere.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    return everywhere


@pytest.fixture
def gate(app: Celeriac) -> threading.Event:
    """An event that the task ``wait`` of the app waits for; only with pools in this process."""
    gate = threading.Event()

    @app.task(name="wait")
    def wait() -> str:
        assert gate.wait(TIMEOUT)
        return "done"

    return gate


def ask(app: Celeriac, command: str, **arguments: Any) -> Any:
    [reply] = app.control.broadcast(command, arguments, reply=True, timeout=TIMEOUT, limit=1)
    return reply[NODE]


def test_a_worker_answers_while_every_slot_is_busy(app: Celeriac, gate: threading.Event) -> None:
    with start_worker(app, pool="threads", hostname=NODE, prefetch_multiplier=4):
        inspect = app.control.inspect(timeout=TIMEOUT, limit=1)
        running = app.tasks["wait"].delay()
        [active] = until(lambda: inspect.active()[NODE])
        waiting = app.tasks["wait"].delay()
        until(lambda: inspect.reserved()[NODE])

        assert inspect.ping() == {NODE: {"ok": "pong"}}
        assert active["id"] == running.id
        assert (active["name"], active["args"], active["kwargs"]) == ("wait", [], {})
        assert [task["id"] for task in inspect.reserved()[NODE]] == [waiting.id]
        query = inspect.query_task(running.id, waiting.id, "nobody")[NODE]
        assert {task_id: found[0] for task_id, found in query.items()} == {
            running.id: "active",
            waiting.id: "reserved",
        }
        assert "add" in inspect.registered()[NODE]
        gate.set()
        assert waiting.get(timeout=TIMEOUT) == "done"
        assert inspect.stats()[NODE]["total"]["wait"] == 2


def test_only_those_answer_who_are_meant(app: Celeriac) -> None:
    with (
        start_worker(app, pool="threads", hostname=NODE),
        start_worker(app, pool="threads", hostname="w2@here"),
    ):
        both = app.control.inspect(timeout=TIMEOUT, limit=2)
        assert set(both.ping()) == {NODE, "w2@here"}
        assert app.control.ping(destination=["w2@here"], timeout=TIMEOUT) == [{"w2@here": {"ok": "pong"}}]
        by_pattern = app.control.inspect(timeout=TIMEOUT, limit=1, pattern="w1*", matcher="glob")
        assert set(by_pattern.ping()) == {NODE}
        assert app.control.inspect(timeout=0.2, destination=["w3@here"]).ping() is None


def test_a_task_that_waits_is_revoked_and_never_runs(app: Celeriac, gate: threading.Event) -> None:
    ran = []

    @app.task(name="note")
    def note(text: str) -> None:
        ran.append(text)

    with start_worker(app, pool="threads", hostname=NODE, prefetch_multiplier=4):
        app.tasks["wait"].delay()
        until(lambda: ask(app, "active"))
        prefetched, queued = note.delay("prefetched"), [note.delay(f"queued {n}") for n in range(20)]
        answer = ask(app, "revoke", task_id=[prefetched.id, *(result.id for result in queued)])
        other = note.delay("other")
        gate.set()

        assert answer["ok"].endswith("flagged as revoked")
        assert other.get(timeout=TIMEOUT) is None
        for result in (prefetched, *queued):
            with pytest.raises(TaskRevokedError, match="revoked"):
                result.get(timeout=TIMEOUT)
        assert prefetched.id in ask(app, "revoked")
    assert ran == ["other"]


def test_tasks_are_revoked_by_their_stamps(app: Celeriac, gate: threading.Event) -> None:
    with start_worker(app, pool="threads", hostname=NODE):
        app.tasks["wait"].delay()
        until(lambda: ask(app, "active"))
        stamped = app.tasks["add"].apply_async(
            (1, 2), headers={"stamps": {"customer": "acme"}}, stamped_headers=["customer"], customer="acme"
        )
        plain = app.tasks["add"].delay(1, 2)
        answer = ask(app, "revoke_by_stamped_headers", headers={"customer": ["acme"]})
        gate.set()

        assert answer == {"ok": "headers {'customer': ['acme']} flagged as revoked, but not terminated"}
        assert plain.get(timeout=TIMEOUT) == 3
        with pytest.raises(TaskRevokedError):
            stamped.get(timeout=TIMEOUT)


def test_a_running_task_is_ended(app: Celeriac) -> None:
    if not app.transport.caps.across_processes:
        pytest.skip("it has no processes")

    @app.task(name="sleep")
    def sleep() -> None:
        time.sleep(TIMEOUT)

    heard: list[dict[str, Any]] = []

    def hear(**facts: Any) -> None:
        heard.append(facts)

    app.hooks.task_revoked.connect(hear, weak=False)
    with start_worker(app, pool="prefork", hostname=NODE):
        result = sleep.delay()
        until(lambda: ask(app, "active"))

        answer = ask(app, "terminate", signal="SIGKILL", task_id=result.id)

        assert answer == {"ok": f"terminate: {result.id}"}
        with pytest.raises(TaskRevokedError, match="terminated"):
            result.get(timeout=TIMEOUT)
        assert app.tasks["add"].delay(1, 2).get(timeout=TIMEOUT) == 3
        assert ask(app, "terminate", signal="KILL", task_id="nobody") == {"ok": "terminate: tasks unknown"}
    [facts] = heard
    assert (facts["terminated"], facts["signum"], facts["expired"]) == (True, 9, False)
    assert app.transport.graveyard().find("celery") == []


def test_each_task_that_waits_for_its_time_is_told_once(app: Celeriac) -> None:
    add = app.tasks["add"]
    late = {add.apply_async((number, 0), countdown=3600 + number).id: number for number in range(5)}
    unwanted = add.apply_async((9, 9), countdown=3600)
    unwanted.revoke()

    with (
        start_worker(app, pool="threads", hostname=NODE),
        start_worker(app, pool="threads", hostname="w2@here"),
    ):
        add.delay(1, 2).get(timeout=TIMEOUT)

        def told() -> Any:
            answers = app.control.inspect(timeout=TIMEOUT, limit=2).scheduled()
            found = [each for answer in answers.values() for each in answer]
            return found if len(found) >= len(late) else None

        waiting = until(told)  # RabbitMQ's come one by one into the hands of both

        assert {each["request"]["id"]: each["request"]["args"][0] for each in waiting} == late
        assert len(waiting) == len(late)
        moments = [datetime.datetime.fromisoformat(each["eta"]).timestamp() for each in waiting]
        assert all(3500 < moment - time.time() < 3700 for moment in moments)
        if app.transport.caps.native_delay:
            assert app.transport.size("celery") - app.transport.ready("celery") == len(late) + 1


def test_what_waits_for_the_end_of_the_calendar_keeps_nobody_from_hearing_of_the_rest() -> None:
    app = memory_app()
    add = app.task(name="add")(lambda: None)
    west = datetime.timezone(datetime.timedelta(hours=-12))
    results = [
        add.apply_async(eta=datetime.datetime(9999, 12, 31, 23, tzinfo=west)),
        add.apply_async(countdown=3600),
    ]

    with start_worker(app, pool="threads", hostname=NODE):
        waiting = ask(app, "scheduled")

    assert {each["request"]["id"] for each in waiting} == {result.id for result in results}
    assert any(each["eta"].startswith("9999-12-31") for each in waiting)


def test_a_rate_limit_holds_tasks_of_its_kind_and_no_others(app: Celeriac) -> None:
    began: list[int] = []

    @app.task(name="rated")
    def rated(number: int) -> None:
        began.append(number)

    with start_worker(app, pool="threads", hostname=NODE, prefetch_multiplier=2):
        assert ask(app, "rate_limit", task_name="rated", rate_limit="1/h") == {
            "ok": "new rate limit set successfully"
        }
        held = [rated.delay(number) for number in range(6)]
        others = [app.tasks["add"].delay(1, 2) for _ in range(3)]
        assert [other.get(timeout=TIMEOUT) for other in others] == [3, 3, 3]
        held[0].get(timeout=TIMEOUT)
        assert began == [0]
        held[3].revoke()
        until(lambda: ask(app, "revoked"))
        assert ask(app, "rate_limit", task_name="rated", rate_limit=0) == {
            "ok": "rate limit disabled successfully"
        }
        for result in (held[1], held[2], held[4], held[5]):
            result.get(timeout=TIMEOUT)
    assert began == [0, 1, 2, 4, 5]


def test_however_many_wait_for_their_rate_others_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "MOST_RATED", 10)  # a suite has no time for thousands
    app = memory_app()
    add = app.task(name="add")(lambda: None)
    rated = app.task(name="rated", rate_limit="1/h")(lambda: None)

    with start_worker(app, pool="threads", hostname=NODE) as worker:
        limited = [rated.delay() for _ in range(40)]
        add.delay().get(timeout=TIMEOUT)

        limited[0].get(timeout=TIMEOUT)
        assert worker.node is not None
        assert len(worker.node.intake.rates) <= 10
        until(lambda: app.transport.ready("celery") == 0)
        assert app.transport.size("celery") >= 29  # the others wait at the broker


def test_time_limits_queues_and_slots_are_changed(app: Celeriac) -> None:
    @app.task(name="sleep")
    def sleep() -> None:
        for _ in range(6000):
            time.sleep(0.01)

    with start_worker(app, pool="threads", hostname=NODE, concurrency=1):
        assert ask(app, "time_limit", task_name="sleep", soft=0.1) == {"ok": "time limits set successfully"}
        with pytest.raises(SoftTimeLimitExceeded):
            sleep.delay().get(timeout=TIMEOUT)
        name = f"extra-{uuid.uuid4().hex[:8]}"
        assert ask(app, "add_consumer", queue=name) == {"ok": f"add consumer {name}"}
        assert app.tasks["add"].apply_async((1, 2), queue=name).get(timeout=TIMEOUT) == 3
        assert [queue["name"] for queue in ask(app, "active_queues")] == ["celery", name]
        assert ask(app, "cancel_consumer", queue=name) == {"ok": f"no longer consuming from {name}"}
        assert ask(app, "pool_grow", n=2) == {"ok": "pool will grow"}
        assert ask(app, "stats")["pool"]["max-concurrency"] == 3
        assert ask(app, "pool_shrink", n=1) == {"ok": "pool will shrink"}
        assert "cannot" in ask(app, "pool_shrink", n=9)["error"]
        assert app.tasks["add"].delay(1, 2).get(timeout=TIMEOUT) == 3


@pytest.mark.parametrize(
    ("command", "arguments", "answer"),
    [
        ("nosuch", {}, {"error": "KeyError('nosuch')"}),
        ("rate_limit", {"task_name": "nobody", "rate_limit": "1/s"}, {"error": "unknown task"}),
        (
            "rate_limit",
            {"task_name": "add", "rate_limit": "1/d"},
            {"error": "Invalid rate limit string: KeyError('d')"},
        ),
        ("time_limit", {"task_name": "nobody"}, {"error": "unknown task"}),
        ("autoscale", {"max": 3, "min": 1}, {"error": "ValueError('Autoscale not enabled')"}),
        ("pool_restart", {}, {"error": "ValueError('Pool restarts not enabled')"}),
        ("heartbeat", {}, None),
    ],
)
def test_what_cannot_be_done_is_answered(
    app: Celeriac, command: str, arguments: dict[str, Any], answer: Any
) -> None:
    with start_worker(app, pool="threads", hostname=NODE):
        assert ask(app, command, **arguments) == answer


def test_commands_of_a_program_run_beside_the_loop(app: Celeriac) -> None:
    threads: list[threading.Thread] = []
    panel: Panel = app.panel

    @panel.inspect_command(args=[("factor", int)], signature="[N=1]")
    def double(state: State, factor: int = 1) -> int:
        """Tell twice the number."""
        threads.append(threading.current_thread())
        return 2 * factor

    with start_worker(app, pool="threads", hostname=NODE) as worker:
        assert ask(app, "double", factor=21) == 42
        assert ask(app, "double", wrong=1)["error"].startswith("TypeError")
        assert worker.hostname == NODE
    assert threads[0].name == "celeriac-control"


def test_what_is_no_command_is_counted_and_ignored(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    fanout = app.transport.fanout()

    def send(body: bytes, content_type: str = "application/json") -> None:
        envelope = Envelope(headers={}, body=body, content_type=content_type, properties=Props())
        fanout.publish([Broadcast(envelope=envelope, exchange=Terms().commands)], deadline=10.0)

    with start_worker(app, pool="threads", hostname=NODE):
        for body in (b"[]", b"{", b'{"method": 1}'):
            send(body)
        send(b"\x80\x04.", "application/x-python-serialize")

        assert app.control.inspect(timeout=TIMEOUT, limit=1).ping() == {NODE: {"ok": "pong"}}
    fanout.close()
    assert len([record for record in caplog.records if "is ignored" in record.message]) == 1


def test_a_worker_stops_when_told_to(app: Celeriac) -> None:
    with start_worker(app, pool="threads", hostname=NODE) as worker:
        app.control.shutdown(destination=["somebody@else"])
        assert ask(app, "ping") == {"ok": "pong"}
        app.control.shutdown()
        node = worker.node
        assert node is not None
        until(lambda: node.shutdown.how == "warm")


async def test_an_event_loop_may_ask_too(app: Celeriac) -> None:
    with start_worker(app, pool="threads", hostname=NODE):
        assert app.control.ping(timeout=TIMEOUT, limit=1) == [{NODE: {"ok": "pong"}}]
