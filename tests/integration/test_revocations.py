"""What is revoked stays revoked: with no worker there, over restarts, and on every broker."""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.canvas import chain, chord, group
from celeriac.errors import ChordError, TaskRevokedError
from celeriac.remote.control import Control
from celeriac.remote.mailbox import Mailbox
from celeriac.result.many import GroupResult
from celeriac.revocations import Revocation, of_stamps, of_tasks
from celeriac.testing.worker import start_worker
from celeriac.transports import connect
from celeriac.wire.control import Command
from worker_program import until

TIMEOUT = 60.0
NODE = "w1@here"


@pytest.fixture
def app(everywhere: Celeriac) -> Celeriac:
    return everywhere


@pytest.fixture
def ran(app: Celeriac) -> list[Any]:
    """What the task ``note`` of the app was called with, worker in this process provided."""
    ran: list[Any] = []

    @app.task(name="note")
    def note(what: Any) -> Any:
        ran.append(what)
        return what

    return ran


def assert_revoked(*results: Any) -> None:
    for result in results:
        with pytest.raises(TaskRevokedError, match="revoked"):
            result.get(timeout=TIMEOUT)


def test_what_is_revoked_while_no_worker_is_there_never_runs(app: Celeriac, ran: list[Any]) -> None:
    note = app.tasks["note"]
    one, two, three = (note.delay(f"by id {n}") for n in range(3))
    grouped = group(note.s(f"of a group {n}") for n in range(3)).apply_async()
    parked = note.apply_async(("parked",), countdown=2.5)
    stamped = note.apply_async(
        ("stamped",),
        headers={"stamps": {"customer": "acme"}},
        stamped_headers=["customer"],
        customer="acme",
    )
    one.revoke()
    app.control.revoke([two.id, three.id, parked.id])
    assert isinstance(grouped, GroupResult)
    grouped.revoke()
    app.control.revoke_by_stamped_headers({"customer": ["acme", "other"]})
    last = note.delay("last")

    with start_worker(app, pool="threads", hostname=NODE):
        assert last.get(timeout=TIMEOUT) == "last"
        assert_revoked(one, two, three, *grouped, stamped, parked)
    assert ran == ["last"]


def test_a_worker_that_begins_anew_knows_what_the_one_before_was_told(app: Celeriac, ran: list[Any]) -> None:
    note = app.tasks["note"]
    with start_worker(app, pool="threads", hostname=NODE):
        assert note.delay("first").get(timeout=TIMEOUT) == "first"
        app.control.revoke("by-our-client")
        # As clients of Celery do it: they broadcast, and remember nothing.
        told = Command(method="revoke", arguments={"task_id": ["by-another", "one-more"]})
        assert Mailbox(app).ask(told, TIMEOUT, limit=1)
        for_one = app.control.revoke("elsewhere", destination=[NODE], reply=True, timeout=TIMEOUT)
        assert for_one is not None
        assert for_one[0][NODE]["ok"]

    gone = [note.apply_async((name,), task_id=name) for name in ("by-our-client", "by-another", "one-more")]
    note.apply_async(("elsewhere",), task_id="elsewhere")  # only that worker was told, while it lived
    with start_worker(app, pool="threads", hostname=NODE):
        assert_revoked(*gone)
        until(lambda: "elsewhere" in ran)
    assert ran == ["first", "elsewhere"]


def test_parts_of_workflows_that_have_not_begun_are_revoked(app: Celeriac, ran: list[Any]) -> None:
    note, gate = app.tasks["note"], threading.Event()

    @app.task(name="wait")
    def wait() -> str:
        assert gate.wait(TIMEOUT)
        return "waited"

    @app.task(name="count")
    def count(parts: list[Any]) -> int:
        ran.append("body")
        return len(parts)

    with start_worker(app, pool="threads", hostname=NODE):
        last = chain(wait.si(), note.si("second"), note.si("third")).apply_async()
        body = chord([note.si("part"), wait.si()])(count.s())
        until(lambda: app.control.inspect(timeout=TIMEOUT, limit=1).active()[NODE])
        assert last.parent is not None
        assert body.parent is not None
        last.parent.revoke()
        body.parent.revoke()
        until(lambda: len(app.control.inspect(timeout=TIMEOUT, limit=1).revoked()[NODE]) == 3)
        gate.set()

        assert_revoked(last.parent)
        assert last.parent.parent is not None
        assert last.parent.parent.get(timeout=TIMEOUT) == "waited"
        with pytest.raises((ChordError, TaskRevokedError)):
            body.get(timeout=TIMEOUT)
    assert ran == []


def test_a_worker_that_heard_nothing_for_a_while_asks(app: Celeriac, ran: list[Any]) -> None:
    note, gate = app.tasks["note"], threading.Event()

    @app.task(name="wait")
    def wait() -> None:
        assert gate.wait(TIMEOUT)

    with start_worker(app, pool="threads", hostname=NODE, prefetch_multiplier=4) as worker:
        wait.delay()
        waits = note.delay("waits")
        node = worker.node
        assert node is not None
        assert node.reminder is not None
        until(lambda: len(node.ledger) == 2)
        kept = app.transport.revocations()
        kept.note(of_tasks([waits.id]), kept_seconds=60.0)  # as if the broadcast had been lost
        node.post(node.reminder.ask)
        until(lambda: (work := node.ledger.of_task(waits.id)) is None or work.lost)
        gate.set()

        assert_revoked(waits)
    assert ran == []


def test_and_signals_once_what_runs_of_it(app: Celeriac) -> None:
    gate, begun = threading.Event(), threading.Event()
    told: list[tuple[str, int]] = []

    struck: list[SystemExit] = []

    @app.task(name="stay")
    def stay() -> str:
        while True:
            try:
                begun.set()
                while not gate.is_set():  # an exception strikes where Python runs
                    time.sleep(0.01)
            except SystemExit as exc:
                struck.append(exc)
            else:
                return "stayed"

    def tell(request: Any, signum: int, **facts: Any) -> None:
        told.append((request.id, signum))

    app.hooks.task_revoked.connect(tell, weak=False)
    with start_worker(app, pool="threads", hostname=NODE) as worker:
        stays = stay.delay()
        assert begun.wait(TIMEOUT)
        node = worker.node
        assert node is not None
        assert node.reminder is not None
        kept = app.transport.revocations()
        try:
            kept.note(of_tasks(["b", stays.id], "SIGKILL"), kept_seconds=60.0)  # the broadcast was lost
            node.post(node.reminder.ask)
            until(lambda: struck)
            kept.note(of_tasks(["last"]), kept_seconds=60.0)
            node.post(node.reminder.ask)  # and all is read again
            until(lambda: "last" in node.revoked.ids())
        finally:
            gate.set()
        assert stays.get(timeout=TIMEOUT) == "stayed"
    assert told == [(stays.id, 9)]
    assert len(struck) == 1


@pytest.mark.parametrize(
    ("say", "noted"),
    [
        (lambda control: control.revoke("a"), of_tasks("a")),
        (lambda control: control.revoke(["a", "b"], terminate=True), of_tasks("ab", "SIGTERM")),
        (lambda control: control.terminate("a", signal="KILL"), of_tasks("a", "SIGKILL")),
        (
            lambda control: control.broadcast("terminate", {"signal": 9, "task_id": ["a"]}),
            of_tasks("a", "SIGKILL"),
        ),
        (
            lambda control: control.revoke_by_stamped_headers({"by": ["me", 1]}, terminate=True, signal=None),
            of_stamps({"by": ["me", 1]}, "SIGTERM"),
        ),
        (lambda control: control.revoke("a", terminate=True, destination=["w1"]), []),
    ],
)
def test_what_a_client_says_is_noted_with_its_signal(
    say: Callable[[Control], object], noted: list[Revocation]
) -> None:
    app = Celeriac("proj", broker=f"memory://{uuid.uuid4().hex}", set_as_current=False)

    say(app.control)

    assert [each.revocation for each in app.transport.revocations().recall()] == noted
    app.close()


def test_older_versions_read_what_shall_not_begin_and_nothing_else(tmp_path: Path) -> None:
    with closing(connect(f"sqlite:///{tmp_path}/q.db")) as transport:
        transport.revocations().note(of_tasks("a"), kept_seconds=60.0)
        transport.revocations().note(of_tasks("b", "SIGTERM"), kept_seconds=60.0)

    with closing(sqlite3.connect(tmp_path / "q.db")) as connection:
        rows = connection.execute("SELECT stamp, value FROM revoked ORDER BY number").fetchall()
    assert rows == [("", "a"), ("", "b")]


def test_what_has_expired_does_not_run_wherever_it_waited(app: Celeriac, ran: list[Any]) -> None:
    note, gate = app.tasks["note"], threading.Event()

    @app.task(name="wait")
    def wait() -> None:
        assert gate.wait(TIMEOUT)

    queued = note.apply_async(("queued",), expires=0.05)
    expires_at = time.time() + 0.05
    parked = note.apply_async(("parked",), countdown=2.5, expires=1.0)
    until(lambda: time.time() > expires_at)
    with start_worker(app, pool="threads", hostname=NODE, prefetch_multiplier=4) as worker:
        # By now it is known as a short one: such may be handed over before their turn.
        assert note.delay("short").get(timeout=TIMEOUT) == "short"
        wait.delay()
        received, sent_at = note.apply_async(("received",), expires=2.0), time.time()
        node = worker.node
        assert node is not None
        until(lambda: node.ledger.of_task(received.id))
        until(lambda: time.time() > sent_at + 2.0)
        gate.set()

        told = [parked, received]
        if app.transport.caps.leases:  # RabbitMQ throws away what expires in a queue, as with Celery
            told.append(queued)
        for result in told:
            with pytest.raises(TaskRevokedError, match="expired"):
                result.get(timeout=TIMEOUT)
    assert ran == ["short"]


def test_a_state_file_keeps_what_only_its_worker_was_told(
    app: Celeriac, ran: list[Any], tmp_path: Path
) -> None:
    note, statedb = app.tasks["note"], str(tmp_path / "state")
    with start_worker(app, pool="threads", hostname=NODE, statedb=statedb):
        assert app.control.revoke("unwanted", destination=[NODE], reply=True, timeout=TIMEOUT)

    note.apply_async(("unwanted",), task_id="unwanted")
    last = note.delay("last")
    with start_worker(app, pool="threads", hostname=NODE, statedb=statedb):
        assert last.get(timeout=TIMEOUT) == "last"
    assert ran == ["last"]
