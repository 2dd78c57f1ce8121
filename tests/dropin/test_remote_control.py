"""Remote control by Celery's names."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from celeriac.testing.worker import start_worker
from celery import Celery
from celery.app.control import Control, Inspect, flatten_reply
from celery.exceptions import DuplicateNodenameWarning
from celery.worker.control import Panel, control_command, inspect_command, nok, ok

TIMEOUT = 60.0


@pytest.fixture
def app() -> Any:
    app = Celery("proj", broker=f"memory://{uuid.uuid4().hex}", backend="disabled", set_as_current=False)
    yield app
    app.close()


def test_commands_of_a_program_see_the_worker(app: Any) -> None:
    @control_command(args=[("n", int)], signature="[N=1]")
    def increase_prefetch_count(state: Any, n: int = 1) -> Any:
        """Hold more messages."""
        state.consumer.qos.increment_eventually(n)
        return ok("prefetch count incremented")

    @inspect_command()
    def current_prefetch_count(state: Any) -> Any:
        return {"prefetch_count": state.consumer.qos.value, "app": state.app is app, "host": state.hostname}

    @Panel.register
    def plain(state: Any) -> Any:
        return nok("no")

    with start_worker(app, pool="threads", hostname="w1@here", concurrency=2):

        def ask(command: str, **arguments: Any) -> Any:
            [reply] = app.control.broadcast(command, arguments, reply=True, timeout=TIMEOUT, limit=1)
            return reply["w1@here"]

        before = ask("current_prefetch_count")
        assert ask("increase_prefetch_count", n=3) == {"ok": "prefetch count incremented"}
        after = ask("current_prefetch_count")
        assert ask("plain") == {"error": "no"}

    assert before == {"prefetch_count": 2, "app": True, "host": "w1@here"}
    assert after["prefetch_count"] == 5
    assert {"ping", "current_prefetch_count"} <= set(Panel.data)
    assert Panel.meta["increase_prefetch_count"].type == "control"
    assert Panel.meta["increase_prefetch_count"].help == "Hold more messages."


def test_the_classes_have_celerys_names(app: Any) -> None:
    assert isinstance(app.control, Control)
    assert issubclass(app.control.inspect, Inspect)
    assert app.control.inspect(timeout=0.1).ping() is None


def test_two_workers_of_one_name_are_warned_of() -> None:
    with pytest.warns(DuplicateNodenameWarning, match="a@h"):
        assert flatten_reply([{"a@h": 1}, {"a@h": 2}, {"b@h": 3}]) == {"a@h": 2, "b@h": 3}


def test_a_destination_that_is_no_list_is_refused(app: Any) -> None:
    with pytest.raises(ValueError, match="destination must be a list/tuple"):
        app.control.ping(destination="w1@here")
