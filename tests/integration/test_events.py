"""What workers and clients tell those who watch, on every broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.events.receiver import EventReceiver
from celeriac.message import Broadcast, Envelope, Props
from celeriac.testing.worker import start_worker

TIMEOUT = 60.0
NODE = "w1@here"
Event = dict[str, Any]


@pytest.fixture
def app(everywhere: Celeriac) -> Celeriac:
    @everywhere.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @everywhere.task(name="tell", bind=True)
    def tell(self: Any) -> None:
        self.send_event("task-progress", done=50)

    return everywhere


class Ear:
    """What somebody hears who listens to the events of an app."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = threading.Condition()

    def hear(self, event: Event) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def wait_for(self, kind: str, **fields: Any) -> Event:
        """Return the first event of a type with these fields."""

        def found() -> list[Event]:
            return [e for e in self.events if e["type"] == kind and fields.items() <= e.items()]

        with self._news:
            assert self._news.wait_for(found, TIMEOUT), f"no {kind} in {self.events}"
            return found()[0]

    def of(self, task_id: str) -> list[str]:
        """Return the types of the events about a task, in their order."""
        return [e["type"] for e in self.events if e.get("uuid") == task_id]


@contextmanager
def listening(app: Celeriac) -> Iterator[Ear]:
    """Listen as long as the block lasts."""
    ear = Ear()
    receiver: EventReceiver = app.events.Receiver(handlers={"*": ear.hear})
    thread = threading.Thread(target=receiver.capture, kwargs={"wakeup": False})
    thread.start()
    end = time.monotonic() + TIMEOUT
    while not ear.events:  # there is no other sign that it listens: on some brokers that takes a while
        assert time.monotonic() < end, "nothing is heard"
        with app.events.default_dispatcher() as dispatcher:
            dispatcher.send("test-ready")
        time.sleep(0.02)
    try:
        yield ear
    finally:
        receiver.should_stop = True
        thread.join(TIMEOUT)


def test_a_task_is_followed_from_its_reception_to_its_end(app: Celeriac) -> None:
    with listening(app) as ear, start_worker(app, pool="threads", hostname=NODE, events=True):
        done = app.tasks["add"].delay(2, 3)
        failed = app.tasks["add"].delay(2, "x")
        succeeded = ear.wait_for("task-succeeded", uuid=done.id)
        failure = ear.wait_for("task-failed", uuid=failed.id)

        assert ear.of(done.id) == ["task-received", "task-started", "task-succeeded"]
        assert ear.of(failed.id) == ["task-received", "task-started", "task-failed"]
        received = ear.wait_for("task-received", uuid=done.id)
    common = {"hostname", "utcoffset", "pid", "clock", "timestamp", "type", "local_received"}
    assert set(received) - common == {
        "uuid", "name", "args", "kwargs", "root_id", "parent_id", "retries", "eta", "expires"
    }  # fmt: skip
    assert received["args"] == "(2, 3)"
    assert succeeded["result"] == "5"
    assert succeeded["hostname"] == NODE
    assert "TypeError" in failure["exception"]
    assert "Traceback" in failure["traceback"]


def test_a_result_can_be_read_when_its_event_comes(app: Celeriac) -> None:
    with listening(app) as ear, start_worker(app, pool="threads", hostname=NODE, events=True):
        results = [app.tasks["add"].delay(n, 1) for n in range(20)]

        for result in results:
            ear.wait_for("task-succeeded", uuid=result.id)
            assert result.state == "SUCCESS"


def test_a_retry_is_told_before_the_end_of_the_run_that_it_has_brought(app: Celeriac) -> None:
    @app.task(name="slow", bind=True)
    def slow(self: Any) -> str:
        if not self.request.retries:
            again = self.retry(countdown=0, throw=False)
            self.AsyncResult(self.request.id).get(timeout=TIMEOUT, disable_sync_subtasks=False)
            raise again  # by now the next run has ended
        return "done"

    state = app.events.State()
    with (
        listening(app) as ear,
        start_worker(app, pool="threads", concurrency=2, hostname=NODE, events=True),
    ):
        result = slow.delay()
        ear.wait_for("task-retried", uuid=result.id)
        ear.wait_for("task-succeeded", uuid=result.id)
    for event in ear.events:
        state.event(event)

    assert ear.of(result.id)[-2:] == ["task-retried", "task-succeeded"]
    assert state.tasks[result.id].state == "SUCCESS"


def test_a_worker_tells_that_it_comes_lives_and_leaves(app: Celeriac) -> None:
    with listening(app) as ear:
        with start_worker(app, pool="threads", hostname=NODE, heartbeat_interval=0.1):
            app.tasks["add"].delay(1, 1).get(timeout=TIMEOUT)
            online = ear.wait_for("worker-online", hostname=NODE)
            ear.wait_for("worker-heartbeat", hostname=NODE, freq=0.1, processed=1, active=0)
        ear.wait_for("worker-offline", hostname=NODE)

    assert {"freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"} <= set(online)
    assert not any(event["type"].startswith("task-") for event in ear.events)


def test_task_events_are_turned_on_and_off_from_afar(app: Celeriac) -> None:
    def tell(command: str) -> str:
        [reply] = app.control.broadcast(command, reply=True, timeout=TIMEOUT, limit=1)
        return str(reply[NODE]["ok"])

    with listening(app) as ear, start_worker(app, pool="threads", hostname=NODE):
        app.tasks["add"].delay(1, 1).get(timeout=TIMEOUT)
        assert tell("enable_events") == "task events enabled"
        assert tell("enable_events") == "task events already enabled"
        told = app.tasks["add"].delay(2, 2)
        ear.wait_for("task-succeeded", uuid=told.id, result="4")
        assert tell("disable_events") == "task events disabled"
        app.tasks["add"].delay(3, 3).get(timeout=TIMEOUT)
        app.control.heartbeat()
        ear.wait_for("worker-heartbeat", freq=5)  # all before that was heard before that

    assert {e["uuid"] for e in ear.events if "uuid" in e} == {told.id}


def test_tasks_tell_events_of_their_own(app: Celeriac) -> None:
    with listening(app) as ear, start_worker(app, pool="threads", hostname=NODE):
        result = app.tasks["tell"].delay()

        progress = ear.wait_for("task-progress", uuid=result.id)
    assert progress["done"] == 50
    assert progress["hostname"] == NODE


def test_a_client_tells_what_it_has_sent(app: Celeriac) -> None:
    app.conf.task_send_sent_event = True
    with listening(app) as ear:
        result = app.tasks["add"].delay(2, 3)
        sent = ear.wait_for("task-sent", uuid=result.id)

    assert sent["name"] == "add"
    assert sent["args"] == "(2, 3)"
    assert (sent["queue"], sent["exchange"], sent["routing_key"]) == ("celery", "", "celery")


def test_a_receiver_ignores_what_is_no_event(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    with listening(app) as ear:
        exchange = app.events.Receiver().exchange
        bad = [b"{", b"[1]", b'{"no": "type"}', b'"text"']
        fanout = app.transport.fanout()
        fanout.publish(
            [
                Broadcast(
                    envelope=Envelope(headers={}, body=body, properties=Props(delivery_mode=1)),
                    exchange=exchange,
                    routing_key="task.multi",
                )
                for body in bad
            ],
            deadline=TIMEOUT,
        )
        fanout.close()
        with app.events.default_dispatcher() as dispatcher:
            dispatcher.send("test-after")
        ear.wait_for("test-after")

    assert [record.levelname for record in caplog.records if "no event" in record.message] == ["WARNING"]


def test_a_state_knows_the_fleet(app: Celeriac) -> None:
    state = app.events.State()
    with listening(app) as ear, start_worker(app, pool="threads", hostname=NODE, events=True):
        result = app.tasks["add"].delay(2, 3)
        ear.wait_for("task-succeeded", uuid=result.id)
    for event in ear.events:
        state.event(event)

    assert state.tasks[result.id].state == "SUCCESS"
    assert state.tasks[result.id].worker.hostname == NODE
    assert state.task_types() == ["add"]


def test_capture_ends_at_its_limit(app: Celeriac) -> None:
    heard: list[Event] = []
    receiver = app.events.Receiver(handlers={"test-one": heard.append})
    stop = threading.Event()
    talking = threading.Thread(target=_talk, args=(app, stop.is_set))
    talking.start()
    try:
        receiver.capture(limit=3, wakeup=False)
        assert sum(len(events) for events in receiver.itercapture(limit=2, wakeup=False)) == 2
    finally:
        stop.set()
        talking.join()

    assert len(heard) == 5


def test_capture_gives_up_when_nothing_comes(app: Celeriac) -> None:
    with pytest.raises(TimeoutError):
        app.events.Receiver().capture(timeout=0.1, wakeup=False)


def _talk(app: Celeriac, is_over: Callable[[], bool]) -> None:
    with app.events.default_dispatcher() as dispatcher:
        while not is_over():
            dispatcher.send("test-one")
            time.sleep(0.01)
