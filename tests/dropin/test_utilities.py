"""What celery.utils has beside plain functions; `tests/interop/test_utilities.py` compares those."""

from __future__ import annotations

import datetime
import importlib
import io
import logging
import pickle
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

import celery
from celery import schedules
from celery.exceptions import CDeprecationWarning, CPendingDeprecationWarning
from celery.utils import (
    collections,
    debug,
    deprecated,
    functional,
    graph,
    imports,
    log,
    objects,
    serialization,
    threads,
    time,
    timer2,
)
from celery.utils.quorum_queues import detect_quorum_queues

# --- threads ------------------------------------------------------------


def test_locals_and_stacks_are_those_of_a_thread() -> None:
    local, stack = threads.Local(), threads.LocalStack()
    local.value = 1
    stack.push("a")
    elsewhere: list[Any] = []
    local_value: Any = local("value")
    top: Any = stack()

    def look() -> None:
        elsewhere.extend([hasattr(local, "value"), len(stack), stack.top, stack.pop()])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()

    assert elsewhere == [False, 0, None, None]
    assert (dict(local), local_value + 1, stack.stack, top, stack.top) == (
        {"value": 1},
        2,
        ["a"],
        "a",
        "a",
    )
    threads.LocalManager([local, stack]).cleanup()
    assert (dict(local), len(stack)) == ({}, 0)
    with pytest.raises(AttributeError, match="value"):
        del local.value


def test_a_background_thread_works_until_it_is_stopped() -> None:
    worked = threading.Event()

    class Working(threads.bgThread):
        def body(self) -> None:
            worked.set()

    one = Working()
    one.start()
    assert worked.wait(60)
    one.stop()

    assert (one.is_alive(), one.daemon, one.name) == (False, True, "Working")


def test_a_background_thread_that_raises_says_so_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    one = threads.bgThread()
    one.start()
    one.join(60)
    one.stop()

    assert "'bgThread' crashed: NotImplementedError" in capsys.readouterr().err


def test_sockets_get_a_timeout_meanwhile() -> None:
    with threads.default_socket_timeout(7):
        inside = socket.getdefaulttimeout()

    assert (inside, socket.getdefaulttimeout()) == (7, None)


def test_a_timer_calls_what_is_due() -> None:
    timer = timer2.Timer(max_interval=0.01)
    called = threading.Event()
    timer.call_after(1000, pytest.fail)

    timer.call_after(0.01, called.set)

    assert called.wait(60)
    assert (len(timer), timer.empty(), bool(timer)) == (1, False, True)
    timer.clear()
    timer.stop()
    assert not timer.running


# --- logs ------------------------------------------------------------


def test_what_is_written_to_a_proxy_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    proxy = log.LoggingProxy(logging.getLogger("tests.proxy"), "INFO")
    caplog.set_level(logging.INFO)

    assert (proxy.write("hello\n"), proxy.write("\n")) == (5, 0)
    proxy.writelines(["a", "b"])
    proxy.flush()
    proxy.close()

    assert proxy.write("no more") == 0
    assert caplog.record_tuples == [("tests.proxy", logging.INFO, text) for text in ("hello", "a", "b")]


def test_a_proxy_that_its_own_handler_writes_to_does_not_go_round() -> None:
    logger = logging.Logger("alone")  # noqa: LOG001 - no other test sees it
    proxy = log.LoggingProxy(logger)
    handler = logging.StreamHandler(proxy)
    logger.addHandler(handler)

    assert proxy.write("once") == 4


def test_in_a_signal_handler_nothing_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written = io.StringIO()
    monkeypatch.setattr("sys.__stderr__", written)

    with log.in_sighandler():
        log.LoggingProxy(logging.getLogger("tests.proxy")).write("plain\n")

    assert (written.getvalue(), caplog.records) == ("plain\n", [])


def test_the_files_of_loggers_are_found() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("tests.files")
    logger.addHandler(handler)
    try:
        assert stream in list(log.iter_open_logger_fds())
    finally:
        logger.removeHandler(handler)


def test_handlers_of_multiprocessing_are_taken_off() -> None:
    logger = log.get_multiprocessing_logger()
    logger.addHandler(logging.NullHandler())

    log.reset_multiprocessing_logger()

    assert logger.handlers == []


# --- collections ------------------------------------------------------------


def test_a_limited_set_forgets_the_oldest() -> None:
    one = collections.LimitedSet(maxlen=3, expires=10, minlen=1)
    for number in range(4):
        one.add(number, now=100 + number)

    assert list(one) == [1, 2, 3]
    one.add(1, now=105)
    assert (list(one), 2 in one, pickle.loads(pickle.dumps(one)).maxlen) == ([2, 3, 1], True, 3)
    one.purge(now=1000)
    assert list(one) == [1]
    assert (one.pop(), one.pop("none"), bool(one)) == (1, "none", False)


def test_limited_sets_merge_by_time() -> None:
    one, other = collections.LimitedSet(), collections.LimitedSet(data={"b": 5.0, "a": 1.0})
    one.add("c", now=3.0)

    one.update(other)
    one.update(["d"])

    assert list(one)[:3] == ["a", "c", "b"]
    assert "d" in one
    one.discard("a")
    assert "a" not in one
    with pytest.raises(ValueError, match="maxlen >= minlen"):
        collections.LimitedSet(maxlen=1, minlen=2)


def test_buffers_drop_what_is_too_much() -> None:
    one = collections.BufferMap(3)
    for key, item in [("a", 1), ("b", 2), ("a", 3), ("b", 4)]:
        one.put(key, item)

    assert (one.total, one.take("a"), one.take("a", None), one.take("b"), repr(one)) == (
        3, 3, None, 2, "<BufferMap: 1/3>",
    )  # fmt: skip
    with pytest.raises(collections.BufferMap.Empty):
        one.take("nothing")
    assert list(collections.Messagebuffer(2, [1, 2])) == [1, 2]


def test_a_view_asks_the_changes_then_the_defaults() -> None:
    defaults = {"celery_b": 2}
    view = collections.ConfigurationView({"a": 1}, [defaults], keys=[lambda key: f"celery_{key}"])

    view.c = 3
    view.add_defaults({"d": 4})

    assert (view["a"], view.b, view["c"], view.d, view.get("e", 5), "b" in view) == (1, 2, 3, 4, 5, True)
    assert defaults == {"celery_b": 2}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = view.nothing


def test_a_chain_takes_changes_in_front() -> None:
    told: list[Any] = []
    one = collections.ChainMap({"a": 1}, {"a": 2, "b": 3})
    one.bind_to(lambda *args, **kwargs: told.append((args, kwargs)))

    one["c"] = 4
    one.update(d=5)
    del one["a"]

    assert (dict(one), one.maps[1], len(one), told) == (
        {"a": 2, "b": 3, "c": 4, "d": 5}, {"a": 2, "b": 3}, 4, [((), {"d": 5})],
    )  # fmt: skip
    with pytest.raises(KeyError, match="first mapping"):
        del one["b"]


# --- objects, functions, modules ------------------------------------------------------------


def test_a_context_falls_back_when_nothing_is_provided() -> None:
    seen: list[str] = []

    @contextmanager
    def make(name: str) -> Iterator[str]:
        seen.append("open")
        yield name
        seen.append("close")

    with objects.FallbackContext(None, make, "made") as made, objects.FallbackContext("given", make) as given:
        seen.append("inside")

    assert (made, given, seen) == ("made", "given", ["open", "inside", "close"])


def test_items_are_attributes() -> None:
    class Message(dict[str, Any]):
        name = objects.getitem_property("name")
        inner = objects.getitem_property("options.inner")

    one = Message(options={})
    one.name, one.inner = "x", 1

    assert (one, one.name, one.inner) == ({"options": {"inner": 1}, "name": "x"}, "x", 1)


def test_an_iterator_is_read_no_further_than_asked() -> None:
    read: list[int] = []

    def note(number: int) -> int:
        read.append(number)
        return number

    one = functional.regen(note(number) for number in range(3))

    assert (one[0], read, bool(one)) == (0, [0], True)
    assert (list(one), list(one), read) == ([0, 1, 2], [0, 1, 2], [0, 1, 2])
    assert pickle.loads(pickle.dumps(one)) == [0, 1, 2]


def test_arguments_are_checked_as_a_function_takes_them() -> None:
    def add(x: int, y: int = 1) -> None: ...

    head = functional.head_from_fun(add)

    assert head(1, y=2) == 1
    with pytest.raises(TypeError, match=r"add\(\) missing a required argument: 'x'"):
        head()
    assert functional.head_from_fun(add, bound=True)() == 1


def test_modules_of_the_working_directory_are_found(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here_0815.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)

    module = imports.import_from_cwd("only_here_0815")

    assert module.x == 1
    (tmp_path / "only_here_0815.py").write_text("x = 22\n")
    assert imports.reload_from_cwd(module).x == 22
    assert imports.module_file(module) == str(tmp_path / "only_here_0815.py")


def test_entry_points_are_classes_and_a_broken_one_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        SimpleNamespace(name="good", value="collections:OrderedDict"),
        SimpleNamespace(name="bad", value="no_such_module:X"),
    ]
    monkeypatch.setattr(imports, "entry_points", lambda group: found)

    with pytest.warns(UserWarning, match="entry point bad of some.group, no_such_module:X, cannot be loaded"):
        classes = dict(imports.load_extension_classes("some.group"))

    assert classes == {"good": importlib.import_module("collections").OrderedDict}


def test_what_cannot_be_pickled_is_stood_in_for() -> None:
    class Local(Exception):
        pass

    class LocalKey(KeyError):
        pass

    stand_in = serialization.get_pickleable_exception(Local(lambda: 1, 2))
    nearest = serialization.get_pickleable_exception(LocalKey("x"))

    assert isinstance(stand_in, serialization.UnpickleableExceptionWrapper)
    copy = pickle.loads(pickle.dumps(stand_in))
    restored = serialization.get_pickled_exception(copy)
    assert (type(restored).__name__, restored.args[1], str(copy)) == ("Local", 2, str(stand_in))
    assert (type(nearest), nearest.args) == (KeyError, ("x",))
    assert serialization.get_pickleable_etype(LocalKey) is KeyError


def test_graphs_are_sorted_and_drawn() -> None:
    one = graph.DependencyGraph([("c", ["b"]), ("b", ["a"]), ("a", [])])
    drawn = io.StringIO()

    one.to_dot(drawn)

    assert (one.topsort(), list(one.edges()), len(one)) == (["a", "b", "c"], ["c", "b"], 3)
    assert '"c" -> "b"' in drawn.getvalue()
    one.add_edge("a", "c")
    with pytest.raises(graph.CycleError, match="circle"):
        one.topsort()


def test_what_goes_away_warns() -> None:
    @deprecated.Callable(removal="9.0", alternative="Use new.")
    def old() -> int:
        return 1

    with pytest.warns(CDeprecationWarning, match=r"old is deprecated .* version 9.0\. Use new\."):
        assert old() == 1
    with pytest.warns(CPendingDeprecationWarning, match="x is scheduled for deprecation in version 8.0"):
        deprecated.warn("x", deprecation="8.0")

    class Has:
        @deprecated.Property(description="Has.it")
        def it(self) -> int:
            return 2

    with pytest.warns(CDeprecationWarning, match=r"Has\.it"):
        assert Has().it == 2


def test_stacks_and_memory_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert "test_stacks_and_memory_are_shown" in (debug.cry() or "")
    debug.sample_mem()
    debug.memdump(samples=2)
    assert "rss (end): " in capsys.readouterr().out
    assert list(debug.sample(range(10), 2)) == [0, 5, 9]


def test_a_block_that_takes_too_long_is_told() -> None:
    with pytest.raises(RuntimeError, match=r"timed out after 0.01 s, at: "), debug.blockdetection(0.01):
        threading.Event().wait(60)
    with debug.blockdetection(0):
        pass


def test_quorum_queues_are_found() -> None:
    app = celery.Celery("app", broker="memory://quorum")

    assert detect_quorum_queues(app, "redis") == (False, "")


# --- times ------------------------------------------------------------


def test_the_machines_zone_is_a_zone() -> None:
    zone = time.LocalTimezone()
    moment = datetime.datetime(2026, 7, 1, 12, tzinfo=datetime.UTC)

    there = moment.astimezone(zone)

    assert there == moment
    assert there.replace(tzinfo=None) == moment.astimezone().replace(tzinfo=None)
    assert repr(zone).startswith("<LocalTimezone: UTC")
    assert pickle.loads(pickle.dumps(zone)).tzname(None) == zone.tzname(None)


def test_schedules_ask_the_current_app_where_none_is_named() -> None:
    app = celery.Celery("app", broker="memory://schedules", timezone="Asia/Tokyo")

    one = schedules.crontab(0, 9)

    assert (one.app, str(one.tz), one.now().tzinfo) == (app, "Asia/Tokyo", one.tz)
    last = datetime.datetime(2026, 1, 15, tzinfo=datetime.UTC)
    start, delta, _ = one.remaining_delta(last)
    assert (start + delta).isoformat() == "2026-01-16T09:00:00+09:00"
    assert one.remaining_delta(last, tz=datetime.UTC)[1] == time.ffwd(
        year=2026, month=1, day=15, hour=9, minute=0, second=0, microsecond=0
    )
    assert schedules.cronfield(None) == "*"
    assert schedules.crontab_parser(7).parse("fri-mon") == {5, 6, 0, 1}
    with pytest.raises(schedules.ParseException):
        schedules.crontab_parser(60).parse("1,")
