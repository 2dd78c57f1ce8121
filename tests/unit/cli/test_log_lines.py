"""How a process logs: what settings and signals change, and what lines say of the task that runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.cli import logs
from celeriac.context import Context, pop, push

LOGGERS = ("", "celery.task")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Put the loggers back to what they were."""
    before = [
        (logger, logger.handlers[:], logger.level, logger.propagate)
        for logger in map(logging.getLogger, LOGGERS)
    ]
    yield
    logging.captureWarnings(False)
    for logger, handlers, level, propagate in before:
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture
def app() -> Celeriac:
    return Celeriac("logs", broker="memory://logs", set_as_current=False)


def lines_of(app: Celeriac, file: Path) -> list[str]:
    """Log a line as a library, one as a task's logger, and one as the worker, and return what is written."""
    logs.setup(app, logs.LogOptions(level=logging.INFO, file=str(file), redirect_prints=False))

    @app.task(name="t.add")
    def add() -> None: ...

    push(add, Context(id="i1"))
    try:
        logging.getLogger("library").warning("inside of %s", "it")
        logging.getLogger("celery.task.mine").info("by the task")
    finally:
        pop()
    about = {"id": "i2", "name": "t.other"}
    logging.getLogger("celery.app.trace").info("Task %(name)s[%(id)s] received", about, extra={"data": about})
    try:
        raise KeyError("x")
    except KeyError:
        logging.getLogger("library").exception("outside")
    return file.read_text().splitlines()


def test_lines_in_json_say_which_task_they_are_of(app: Celeriac, tmp_path: Path) -> None:
    app.conf.worker_log_format = "json"

    library, task, worker, failure = map(json.loads, lines_of(app, tmp_path / "w.log"))

    assert (library["level"], library["logger"], library["message"]) == (
        "WARNING",
        "library",
        "inside of it",
    )
    assert [(line["task_name"], line["task_id"]) for line in (library, task)] == [("t.add", "i1")] * 2
    assert (worker["message"], worker["task_name"]) == ("Task t.other[i2] received", "t.other")
    assert worker["task_id"] == "i2"
    assert "task_id" not in failure
    assert "KeyError: 'x'" in failure["exception"]
    assert library["time"].endswith("+00:00")


def test_any_format_may_have_the_task_in_it(app: Celeriac, tmp_path: Path) -> None:
    app.conf.worker_log_format = "%(asctime)s %(task_name)s[%(task_id)s] %(message)s"
    app.conf.worker_log_datefmt = "<date>"

    library, task, worker, *_ = lines_of(app, tmp_path / "w.log")

    assert library == "<date> t.add[i1] inside of it"
    assert task.endswith("/MainProcess] t.add[i1]: by the task")
    assert worker == "<date> ???[???] Task t.other[i2] received"


def test_who_receives_setup_logging_sets_it_up_alone(app: Celeriac) -> None:
    told: list[dict[str, Any]] = []
    before = logging.getLogger().handlers[:]

    @app.hooks.setup_logging.connect
    def receiver(**facts: Any) -> None:
        told.append(facts)

    @app.hooks.after_setup_logger.connect
    def never(**facts: Any) -> None:
        raise AssertionError

    logs.setup(app, logs.LogOptions(level=logging.INFO, redirect_prints=False, colour=False))

    assert logging.getLogger().handlers == before
    [facts] = told
    del facts["signal"]
    assert facts == {
        "sender": None,
        "loglevel": logging.INFO,
        "logfile": None,
        "format": logs.PROCESS_FORMAT,
        "colorize": False,
    }


def test_loggers_are_handed_out_when_they_are_set_up(app: Celeriac) -> None:
    told: dict[str, dict[str, Any]] = {}

    def receiver(signal: Any = None, **facts: Any) -> None:
        told[signal.name] = facts

    for name in ("after_setup_logger", "after_setup_task_logger"):
        app.hooks.get(name).connect(receiver, weak=False)

    logs.setup(app, logs.LogOptions(level=logging.INFO, redirect_prints=False, colour=False))

    assert {name: facts["logger"].name for name, facts in told.items()} == {
        "after_setup_logger": "root",
        "after_setup_task_logger": "celery.task",
    }
    assert all(
        facts.keys() == {"sender", "logger", "loglevel", "logfile", "format", "colorize"}
        for facts in told.values()
    )


@pytest.mark.parametrize("hijacks", [True, False])
def test_the_handlers_of_the_program_go_or_stay(app: Celeriac, hijacks: bool) -> None:
    mine = logging.NullHandler()
    logging.getLogger().addHandler(mine)
    app.conf.worker_hijack_root_logger = hijacks

    logs.setup(app, logs.LogOptions(redirect_prints=False))

    assert (mine in logging.getLogger().handlers) is not hijacks
