"""The names that programs import, and that they are Celeriac's own objects."""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest

import celeriac.errors
import celeriac.states
import celery
from celery import exceptions, local, schedules, signals, states, utils
from celery.app import defaults
from celery.utils import log, nodenames


@pytest.mark.parametrize(
    "name",
    [
        "Celery", "Signature", "Task", "bugreport", "chain", "chord", "chunks", "current_app", "current_task",
        "group", "maybe_signature", "shared_task", "signature", "subtask", "uuid", "xmap", "xstarmap",
    ],
)  # fmt: skip
def test_every_public_name_of_celery_is_there(name: str) -> None:
    assert getattr(celery, name) is not None
    assert name in dir(celery)
    assert name in celery.__all__


@pytest.mark.parametrize("name", ["SERIES", "VERSION", "VERSION_BANNER", "__version__", "version_info"])
def test_every_name_of_celerys_version_is_there(name: str) -> None:
    assert getattr(celery, name)


@pytest.mark.parametrize(
    "name",
    [
        "app", "bin", "canvas", "exceptions", "fixups", "local", "registry", "result", "schedules", "signals",
        "states", "utils",
    ],
)  # fmt: skip
def test_modules_of_celery_are_reached_through_the_package(name: str) -> None:
    # In a process of its own: here other tests have imported them.
    code = f"from celery import {name}; print({name}.__name__)"

    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment()
    ).stdout

    assert printed == f"celery.{name}\n"


@pytest.mark.parametrize(
    "name",
    [
        "celery.apps.worker", "celery.bootsteps", "celery.contrib.pytest", "celery.contrib.testing.app",
        "celery.contrib.testing.manager", "celery.contrib.testing.mocks", "celery.contrib.testing.tasks",
        "celery.contrib.testing.worker", "celery.worker", "celery.worker.autoscale",
        "celery.concurrency", "celery.concurrency.base", "celery.worker.components", "celery.worker.consumer",
        "celery.worker.strategy",
        "celery.app.base", "celery.app.defaults", "celery.app.log", "celery.app.registry", "celery.app.task",
        "celery.app.utils", "celery.bin.base", "celery.bin.celery", "celery.canvas", "celery.decorators",
        "celery.app.events", "celery.events", "celery.events.cursesmon", "celery.events.dispatcher",
        "celery.events.dumper", "celery.events.event", "celery.events.receiver", "celery.events.snapshot",
        "celery.events.state", "celery.exceptions", "celery.fixups.django", "celery.platforms",
        "celery.loaders", "celery.loaders.app", "celery.loaders.base", "celery.loaders.default",
        "celery.registry",
        "celery.result", "celery.schedules", "celery.signals",
        "celery.security", "celery.states", "celery.task", "celery.task.base", "celery.task.schedules",
        "celery.task.sets", "celery.utils", "celery.utils.dispatch", "celery.utils.dispatch.signal",
        "celery.utils.abstract", "celery.utils.annotations", "celery.utils.collections", "celery.utils.debug",
        "celery.utils.deprecated", "celery.utils.functional", "celery.utils.graph", "celery.utils.imports",
        "celery.utils.iso8601", "celery.utils.log", "celery.utils.nodenames", "celery.utils.objects",
        "celery.utils.quorum_queues", "celery.utils.saferepr", "celery.utils.serialization",
        "celery.utils.sysinfo", "celery.utils.term", "celery.utils.text", "celery.utils.threads",
        "celery.utils.time", "celery.utils.timer2", "djcelery",
    ],
)  # fmt: skip
def test_modules_have_what_they_promise(name: str) -> None:
    module = importlib.import_module(name)

    assert [one for one in getattr(module, "__all__", ()) if not hasattr(module, one)] == []


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = celery.nothing
    with pytest.raises(AttributeError):
        _ = exceptions.nothing
    with pytest.raises(ImportError):
        exec("from celery import nothing")


def test_versions_compare_as_celerys_do() -> None:
    assert celery.VERSION >= (5, 1)
    assert celery.VERSION[:2] == (5, 7)
    assert celery.__version__ == "5.7.0"
    assert celery.VERSION_BANNER.startswith("5.7.0 (")


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, celery; print([n for n in sys.modules if n.startswith(('celer', 'kombu', 'click'))])"

    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment()
    ).stdout

    assert printed.strip() == "['celery']"


def test_making_an_app_imports_neither_kombu_nor_the_command_line() -> None:
    code = (
        "import sys; from celery import Celery, shared_task\n"
        "import celery.exceptions, celery.result, celery.signals, celery.schedules, celery.utils.log\n"
        "app = Celery('x', broker='memory://')\n"
        "heavy = {'kombu', 'billiard', 'vine', 'amqp', 'redis', 'click', 'email'}\n"
        "print(sorted(heavy & {n.split('.')[0] for n in sys.modules}))"
    )

    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment()
    ).stdout

    assert printed.strip() == "[]"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


# --- exceptions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "AlreadyRegistered", "BackendError", "ChordError", "Ignore", "IncompleteStream", "InvalidTaskError",
        "MaxRetriesExceededError", "NotRegistered", "QueueNotFound", "Reject", "Retry", "SecurityError",
        "SoftTimeLimitExceeded", "TaskError", "TaskRevokedError", "TimeLimitExceeded", "TimeoutError",
        "WorkerLostError",
    ],
)  # fmt: skip
def test_exceptions_are_the_cores_own(name: str) -> None:
    assert getattr(exceptions, name) is getattr(celeriac.errors, name)


def test_exceptions_under_other_names_are_the_cores_own_too() -> None:
    assert exceptions.ImproperlyConfigured is celeriac.errors.ConfigError
    assert exceptions.CeleryError is celeriac.errors.CeleriacError
    assert exceptions.TaskPredicate is celeriac.errors.TaskSignal
    assert exceptions.RetryTaskError is celeriac.errors.Retry


def test_broker_errors_are_caught_by_kombus_names() -> None:
    kombu = importlib.import_module("kombu.exceptions")

    assert exceptions.OperationalError is kombu.OperationalError
    with pytest.raises(kombu.OperationalError) as caught:
        raise celeriac.errors.BrokerUnreachable("redis://:**@host is away", retryable=False)
    assert (str(caught.value), caught.value.retryable) == ("redis://:**@host is away", False)
    assert issubclass(celeriac.errors.PublishTimeout, kombu.OperationalError)
    assert issubclass(celeriac.errors.EncodeError, kombu.EncodeError)
    assert issubclass(celeriac.errors.DecodeError, kombu.DecodeError)
    assert issubclass(celeriac.errors.ContentRefused, kombu.ContentDisallowed)
    assert not issubclass(kombu.OperationalError, celeriac.errors.TransportError)


def test_task_errors_are_caught_by_billiards_names() -> None:
    billiard = importlib.import_module("billiard.exceptions")

    for name in ("SoftTimeLimitExceeded", "TimeLimitExceeded", "WorkerLostError"):
        assert issubclass(getattr(exceptions, name), getattr(billiard, name))
    assert str(exceptions.TimeLimitExceeded(15)) == "TimeLimitExceeded(15,)"
    assert exceptions.Terminated is billiard.Terminated


def test_errors_become_kin_when_the_other_package_is_imported_later() -> None:
    code = (
        "import celery._state, celeriac.errors as e\n"
        "before = e.TransportError.__bases__, str(e.TimeLimitExceeded(15))\n"
        "import kombu.exceptions, billiard.exceptions, inspect\n"
        "inspect.getsource(kombu.exceptions)\n"
        "assert len(before[0]) == 1 and issubclass(e.TransportError, kombu.exceptions.OperationalError)\n"
        "assert str(e.TimeLimitExceeded(15)) == before[1]\n"
        "print(kombu.exceptions.__spec__.loader is kombu.exceptions.__loader__)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=_environment()
    )

    assert (done.stdout.strip(), done.stderr) == ("True", "")


def test_kinship_can_be_undone() -> None:
    importlib.import_module("kombu.exceptions")
    kinship = importlib.import_module("celery._kinship")

    kinship.uninstall()
    alone = celeriac.errors.TransportError.__bases__
    kinship.install()

    assert alone == (celeriac.errors.CeleriacError,)
    assert len(celeriac.errors.TransportError.__bases__) == 2


def test_backend_errors_say_which_task() -> None:
    error = exceptions.BackendStoreError("away", state="SUCCESS", task_id="1-2-3")

    assert repr(error) == "BackendStoreError('away') state:SUCCESS task_id:1-2-3"
    assert str(error) == "away"


def test_an_exception_is_raised_again_with_its_traceback() -> None:
    try:
        raise KeyError("x")
    except KeyError as exc:
        first = exc

    with pytest.raises(KeyError) as caught:
        exceptions.reraise(KeyError, KeyError("x"), first.__traceback__)
    assert caught.traceback[-1].lineno == first.__traceback__.tb_lineno - 1  # type: ignore[union-attr]


def test_commands_end_with_a_code() -> None:
    assert exceptions.CeleryCommandException("no", exit_code=69).exit_code == 69
    with pytest.raises(SystemExit):
        raise exceptions.WorkerShutdown(0)


# --- states, signals, settings ---------------------------------------------------------------------


def test_states_compare_by_precedence() -> None:
    assert states.state(states.SUCCESS) > states.state(states.PENDING)
    assert states.state("PROGRESS") > states.state(states.STARTED)
    assert not states.state("PROGRESS") > states.state(states.SUCCESS)
    assert states.state(states.PENDING) <= states.state(states.PENDING) >= states.state(states.PENDING)
    assert states.state(states.RETRY) < states.state(states.FAILURE)
    assert states.READY_STATES is celeriac.states.READY_STATES


def test_every_signal_of_the_core_has_its_name_here() -> None:
    from celeriac.hooks import SIGNALS

    assert {name for name in SIGNALS if not hasattr(signals, name)} == set()
    assert set(signals.__all__) == {"Signal", *SIGNALS}


def test_settings_are_listed_by_section() -> None:
    assert defaults.DEFAULTS["task_default_queue"] == "celery"
    assert defaults.NAMESPACES["worker"]["pool"].default == "prefork"
    assert dict(defaults.flatten(defaults.NAMESPACES)).keys() == defaults.SETTING_KEYS
    assert defaults._TO_NEW_KEY["CELERYD_POOL"] == "worker_pool"
    assert defaults._TO_OLD_KEY["worker_pool"] == "CELERYD_POOL"
    assert defaults.find("extended", "result")[:2] == ("result", "extended")
    with pytest.raises(KeyError):
        defaults.find("no_such_thing")


# --- small things ------------------------------------------------------------------------------------


def test_task_loggers_are_below_celery_task(caplog: pytest.LogCaptureFixture) -> None:
    logger = log.get_task_logger("tests.dropin.some_tasks")

    assert logger.parent is log.task_logger
    assert log.get_task_logger("celery.task.deeper").parent is log.task_logger
    assert log.get_logger("tests_dropin_alone").parent is log.base_logger
    assert log.get_logger("celery") is log.base_logger
    with pytest.raises(RuntimeError, match="reserved"):
        log.get_task_logger("celery.task")
    assert (log.mlevel("info"), log.mlevel(10), log.mlevel(None)) == (logging.INFO, 10, None)


def test_names_of_nodes() -> None:
    assert nodenames.nodename("celery", "host") == "celery@host"
    assert nodenames.nodesplit("celery@host") == ["celery", "host"]
    assert nodenames.nodesplit("host") == (None, "host")
    assert utils.worker_direct("w1@host").name == "w1@host.dq2"
    assert utils.worker_direct(utils.worker_direct("w1@host")).routing_key == "w1@host"


def test_utilities() -> None:
    assert len(utils.uuid()) == 36
    assert list(utils.chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert utils.gen_task_name(celery.Celery("main"), "add", "tasks") == "tasks.add"
    assert utils.memoize(maxsize=1)(len)("ab") == 2
    assert utils.get_full_cls_name(dict) == "builtins.dict"
    assert utils.instantiate("collections.OrderedDict", a=1) == {"a": 1}


def test_schedules_keep_what_they_were_given() -> None:
    assert schedules.crontab(0, 7, day_of_week="mon") == schedules.crontab(0, 7, "mon")
    assert repr(schedules.crontab(minute="*/15")) == "<crontab: */15 * * * * (m/h/dM/MY/d)>"
    assert schedules.maybe_schedule(30).seconds == 30
    with pytest.raises(TypeError, match="unhashable"):
        hash(schedules.crontab())


def test_tasks_can_be_sent_by_name_as_of_old() -> None:
    execute: Any = importlib.import_module("celery.execute")
    app = celery.Celery("app", broker="memory://execute")

    execute.send_task("some.task")

    assert app.transport.size("celery") == 1
    with pytest.raises(AttributeError):
        _ = execute.nothing


def test_messages_of_the_current_app_are_signed_once_asked_for() -> None:
    security = importlib.import_module("celery.security")
    celery.Celery("app", broker="memory://security", task_serializer="auth", accept_content=["auth"])

    with pytest.raises(exceptions.ImproperlyConfigured, match="security_key"):
        security.setup_security()


def test_formatters_of_programs_know_the_running_task() -> None:
    from celery.app.log import TaskFormatter

    app = celery.Celery("app", broker="memory://formatter")
    formatter = TaskFormatter("%(task_name)s %(message)s")
    record = logging.LogRecord("x", logging.ERROR, "", 0, "hello", (), None)

    @app.task
    def show() -> str:
        return formatter.format(record)

    assert TaskFormatter("%(task_id)s %(message)s", use_color=False).format(record) == "??? hello"
    assert show() == f"\x1b[1;31m{show.name} hello\x1b[0m"
    assert log.ColorFormatter(use_color=False).format(record) == "hello"


def test_a_signal_of_ones_own_calls_its_receivers() -> None:
    from celery.utils.dispatch import Signal

    heard: list[Any] = []
    signal = Signal(name="mine", providing_args={"x"})

    signal.connect(lambda x, **_: heard.append(x), weak=False)
    signal.send(sender=None, x=1)

    assert heard == [1]


# --- proxies -------------------------------------------------------------------------------------------


def test_a_proxy_behaves_as_what_is_behind_it() -> None:
    behind: Any = [3, 1]
    proxy: Any = local.Proxy(lambda: behind)

    proxy.append(2)

    assert (proxy == [3, 1, 2], len(proxy), proxy[0], 1 in proxy, sorted(proxy)) == (
        True,
        3,
        3,
        True,
        [1, 2, 3],
    )
    assert [isinstance(one, list) for one in (proxy,)] == [
        True
    ]  # in a line of its own, checkers conclude from it
    assert (repr(proxy), str(proxy), bool(proxy)) == ("[3, 1, 2]", "[3, 1, 2]", True)
    assert proxy * 1 + [1] == [3, 1, 2, 1]
    assert proxy[1:] == [1, 2]
    assert "append" in dir(proxy)
    behind = {"a": 1}
    proxy["b"] = 2
    assert behind == {"a": 1, "b": 2}
    del proxy["b"]
    assert list(proxy) == ["a"]


def test_a_proxy_forwards_attributes_and_calls() -> None:
    class Thing:
        value = 1

        def __call__(self, x: int) -> int:
            return x + self.value

    thing = Thing()
    proxy: Any = local.Proxy(lambda: thing, name="own", __doc__="Own.")

    proxy.value = 5

    assert (thing.value, proxy(1)) == (5, 6)
    assert (proxy.__name__, proxy.__doc__) == ("own", "Own.")
    del proxy.value
    assert thing.value == 1
    assert type(proxy) is local.Proxy


def test_a_proxy_is_pickled_as_what_is_behind_it() -> None:
    moment = __import__("datetime").date(2030, 1, 1)

    assert pickle.loads(pickle.dumps(local.Proxy(lambda: moment))) == moment


def test_an_unbound_proxy_can_be_shown() -> None:
    def nothing() -> None:
        raise RuntimeError("nothing is bound")

    assert repr(local.Proxy(nothing)) == "<Proxy unbound>"


def test_a_promise_is_kept_once() -> None:
    made: list[int] = []
    waiting: list[str] = []

    def make() -> list[int]:
        made.append(1)
        return made

    promise: Any = local.PromiseProxy(make)
    promise.__then__(waiting.append, "first")
    before = list(waiting)

    assert (before, promise == [1], promise == [1], waiting) == ([], True, True, ["first"])
    promise.__then__(waiting.append, "second")
    assert waiting == ["first", "second"]
    assert local.maybe_evaluate(promise) is made
    assert local.maybe_evaluate(5) == 5


def test_a_module_that_is_missing_is_none() -> None:
    assert local.try_import("a_module_that_is_not_there") is None
    assert local.try_import("json").__name__ == "json"
