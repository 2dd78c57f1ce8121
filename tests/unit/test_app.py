"""An app: how tasks are declared, when settings are read, what is found and imported."""

from __future__ import annotations

import datetime
import os
import pickle
import sys
import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from celeriac.app import Celeriac
from celeriac.errors import ConfigError, NotRegistered, UsageError
from celeriac.task import Task
from desk import new_app


def test_a_task_is_named_after_its_module_and_function() -> None:
    app = new_app()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    assert add.name == f"{__name__}.add"
    assert repr(add) == f"<@task: {__name__}.add of proj at {id(add):#x}>"
    assert add(1, 2) == 3
    assert app.tasks[add.name] is add
    assert add.__wrapped__(1, 2) == 3


def test_main_stands_for_the_main_module_in_names() -> None:
    assert Celeriac("proj").gen_task_name("add", "__main__") == "proj.add"
    assert Celeriac().gen_task_name("add", "__main__") == "__main__.add"
    assert Celeriac(name="tasks").main == "tasks"  # as some programs say it


def test_options_of_the_decorator_are_attributes_of_the_task() -> None:
    app = new_app()

    @app.task(name="other", max_retries=7, queue="fast", my_own=1)
    def add(x: int) -> int:
        return x

    assert (add.name, add.max_retries, add.queue, add.my_own) == ("other", 7, "fast", 1)  # type: ignore[attr-defined]


def test_a_bound_task_comes_first_among_its_arguments() -> None:
    app = new_app()

    @app.task(bind=True)
    def me(self: Any, x: int) -> tuple[str, int]:
        return self.name, x

    assert me(3) == (me.name, 3)


def test_declaring_a_name_again_returns_the_task_that_has_it() -> None:
    app = new_app()

    @app.task(name="same")
    def one() -> int:
        return 1

    @app.task(name="same")
    def two() -> int:
        return 2

    assert two is one


def test_a_filter_has_the_last_word_on_what_the_decorator_returns() -> None:
    app = new_app()
    seen: list[Any] = []

    def note(task: Any) -> str:
        seen.append(task)
        return "filtered"

    @app.task(filter=note)
    def add() -> None: ...

    assert cast("Any", add) == "filtered"
    assert seen[0].name in app.tasks


def test_the_decorator_says_what_it_cannot_take() -> None:
    app: Any = new_app()

    with pytest.raises(TypeError, match="must be a callable"):
        app.task("name")
    with pytest.raises(TypeError, match="exactly 1 argument"):
        app.task(print, print)


def test_a_custom_base_class_is_used_for_one_task_or_for_all() -> None:
    class Base(Task[Any, Any]):
        queue = "special"

        def greet(self) -> str:
            return f"I am {self.name}"

    app = new_app(task_cls=Base)
    plain = new_app()

    @app.task(name="a")
    def one() -> None: ...

    @plain.task(name="b", base=Base)
    def two() -> None: ...

    assert one.greet() == "I am a"  # type: ignore[attr-defined]
    assert two.greet() == "I am b"  # type: ignore[attr-defined]
    assert isinstance(one, Base)
    assert issubclass(app.Task, Base)


def test_replacing_the_apps_task_class_counts_for_tasks_declared_later() -> None:
    app = new_app()

    class WithContext(app.Task):  # type: ignore[name-defined,misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return ("in context", self.run(*args, **kwargs))

    app.Task = WithContext

    @app.task
    def add(x: int) -> Any:
        return x

    assert add(1) == ("in context", 1)
    assert add.apply((1,)).get() == ("in context", 1)


def test_a_class_based_task_is_registered_by_class_or_instance() -> None:
    app = new_app()

    class Adder(Task[Any, Any]):
        name = "adder"

        def run(self, x: int) -> int:
            return x + 1

    class Named(Task[Any, Any]):
        def run(self) -> str:
            return self.name

    adder = app.register_task(Adder())
    named = app.register_task(Named)

    assert adder.apply((1,)).get() == 2
    assert adder.app is app
    assert named() == f"{__name__}.Named"
    with pytest.raises(NotImplementedError):
        Task().run()


def test_looking_at_the_tasks_finalizes_once() -> None:
    app = new_app()
    told = []
    app.on_after_finalize.connect(lambda **kwargs: told.append(1), weak=False)

    assert not app.finalized
    assert "celery.chord_unlock" in app.tasks
    assert app.finalized
    app.finalize()
    assert told == [1]


def test_every_app_has_the_standard_tasks() -> None:
    names = {name for name in new_app().tasks if name.startswith("celery.")}

    assert names == {
        "celery.backend_cleanup",
        "celery.accumulate",
        "celery.chord_unlock",
        "celery.map",
        "celery.starmap",
        "celery.chunks",
        "celery.group",
        "celery.chain",
        "celery.chord",
    }


def test_without_autofinalize_nothing_works_before_finalize() -> None:
    app = Celeriac("proj", autofinalize=False)

    with pytest.raises(RuntimeError, match="Contract breach: app not finalized"):
        app.tasks  # noqa: B018

    app.finalize()
    assert app.tasks


def test_a_missing_task_is_not_registered() -> None:
    with pytest.raises(NotRegistered):
        new_app().tasks["missing"]


def test_settings_are_read_at_the_first_look_and_tasks_take_what_they_leave_open() -> None:
    events = []
    app = new_app(task_serializer="pickle", task_acks_late=True, accept_content=["pickle"])
    app.on_configure.connect(lambda **kwargs: events.append("configure"), weak=False)
    app.on_after_configure.connect(lambda **kwargs: events.append("after"), weak=False)

    @app.task
    def late() -> None: ...

    @app.task(acks_late=False, serializer="json")
    def early() -> None: ...

    assert not app.configured
    assert events == []
    assert "celery.map" in app.tasks
    assert events == ["configure", "after"]
    assert (late.serializer, late.acks_late, late.ignore_result) == ("pickle", True, False)
    assert (early.serializer, early.acks_late) == ("json", False)


def test_a_handler_of_on_configure_can_still_set_the_source() -> None:
    app = Celeriac("proj")

    def configure(sender: Any, **kwargs: Any) -> None:
        sender.conf.task_default_queue = "late"

    app.on_configure.connect(configure)

    assert app.conf.task_default_queue == "late"


def test_settings_come_from_a_class_a_dict_a_module_or_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unit_settings.py").write_text("task_default_queue = 'module'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("UNIT_SETTINGS", "unit_settings")

    class Config:
        task_default_queue = "class"

    by_class, by_dict, by_name, by_variable = (Celeriac("proj") for _ in range(4))
    by_class.config_from_object(Config)
    by_dict.config_from_object({"CELERY_TASK_DEFAULT_QUEUE": "dict"}, namespace="CELERY")
    by_name.config_from_object("unit_settings")
    by_variable.config_from_envvar("UNIT_SETTINGS")
    apps = [by_class, by_dict, by_name, by_variable]

    assert [app.conf.task_default_queue for app in apps] == ["class", "dict", "module", "module"]
    with pytest.raises(ConfigError):
        Celeriac("proj").config_from_envvar("NO_SUCH_VARIABLE")
    assert Celeriac("proj").config_from_envvar("NO_SUCH_VARIABLE", silent=True) is False


def test_a_source_that_is_not_there_is_an_error_when_it_is_read() -> None:
    app = Celeriac("proj")
    app.config_from_object("no_such_module_at_all")
    with pytest.raises(ImportError):
        app.conf.task_default_queue  # noqa: B018

    silent = Celeriac("proj")
    silent.config_from_object("no_such_module_at_all", silent=True)
    assert silent.conf.task_default_queue == "celery"


def test_a_new_source_takes_the_place_of_the_old_one() -> None:
    app = Celeriac("proj")
    app.config_from_object({"task_default_queue": "one", "task_default_exchange": "x"})
    assert app.conf.task_default_queue == "one"

    app.config_from_object({"task_default_queue": "two"})

    assert app.conf.task_default_queue == "two"
    assert app.conf.task_default_exchange is None


def test_annotations_change_tasks() -> None:
    def double(call: Any) -> Any:
        return lambda *args: 2 * call(*args)

    def on_success(self: Any, *args: Any) -> str:
        return f"{self.name} is told"

    everybody = {"time_limit": 9, "on_success": on_success}
    app = new_app(task_annotations={"*": everybody, "a": {"@__call__": double, "rate_limit": "1/s"}})

    @app.task(name="a")
    def one() -> int:
        return 1

    @app.task(name="b")
    def two() -> int:
        return 2

    app.finalize()

    assert (one.rate_limit, two.rate_limit) == ("1/s", None)
    assert (one.time_limit, two.time_limit) == (9, 9)
    assert (one(), two()) == (2, 2)
    assert one.on_success(1, "id", (), {}) == "a is told"  # type: ignore[func-returns-value]


def test_of_several_annotations_the_first_that_knows_the_task_counts() -> None:
    class Limits:
        def annotate(self, task: Any) -> dict[str, Any] | None:
            return {"rate_limit": "1/s", "time_limit": 1} if task.name == "a" else None

    app = new_app(task_annotations=[Limits(), {"a": {"rate_limit": "2/s"}}, {"*": {"time_limit": 9}}])

    @app.task(name="a")
    def one() -> int:
        return 1

    app.finalize()

    assert (one.rate_limit, one.time_limit) == ("1/s", 9)  # what is for all tasks goes first, as in Celery


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for package, text in [
        ("unit_a", "found = True\n"),
        ("unit_b", None),
        ("unit_c", "import no_such_thing\n"),
    ]:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
        if text is not None:
            (tmp_path / package / "tasks.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("unit_")]:
        del sys.modules[name]


def test_tasks_modules_are_discovered_when_modules_are_imported(packages: Path) -> None:
    app = Celeriac("proj")
    app.autodiscover_tasks(lambda: ["unit_a", "unit_b"])
    assert "unit_a.tasks" not in sys.modules

    app.import_modules()

    assert sys.modules["unit_a.tasks"].found is True
    assert "unit_b.tasks" not in sys.modules


def test_an_import_that_fails_inside_a_tasks_module_is_not_hidden(packages: Path) -> None:
    app = Celeriac("proj")
    app.autodiscover_tasks(["unit_c"])

    with pytest.raises(ModuleNotFoundError, match="no_such_thing"):
        app.import_modules()


def test_imports_and_include_are_imported_in_order_once(packages: Path) -> None:
    app = Celeriac("proj", include=["unit_b", "unit_a.tasks"], imports=("unit_a.tasks",))

    names = [module.__name__ for module in app.import_modules()]

    assert names == ["unit_a.tasks", "unit_b"]


def test_the_time_zone_is_utc_unless_the_settings_say_otherwise() -> None:
    berlin = Celeriac("proj", timezone="Europe/Berlin")

    assert Celeriac("proj").timezone is datetime.UTC
    assert Celeriac("proj").uses_utc_timezone()
    assert berlin.timezone == zoneinfo.ZoneInfo("Europe/Berlin")
    assert berlin.now().tzinfo == zoneinfo.ZoneInfo("Europe/Berlin")
    with pytest.raises(ConfigError, match="timezone is 'Mars/Base', and there is no such time zone"):
        Celeriac("proj", timezone="Mars/Base").now()


def test_a_part_that_nothing_provides_is_named() -> None:
    assert not hasattr(Celeriac("proj"), "amqp")
    with pytest.raises(UsageError, match="'amqp'"):
        Celeriac("proj").amqp  # noqa: B018

    class Control:
        def __init__(self, app: Any) -> None:
            self.app = app

    app = Celeriac("proj", control=Control)
    assert app.control.app is app
    assert app.control is app.control


def test_extensions_hear_of_new_apps_shared_tasks_and_finalizing(monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[Any] = []
    shared: list[Any] = []
    monkeypatch.setattr(Celeriac, "on_create", [created.append])
    monkeypatch.setattr(Celeriac, "on_shared", [lambda app, fun, options: shared.append(fun.__name__)])
    monkeypatch.setattr(Celeriac, "on_finalize", [lambda app: app.declare(len, name="extra")])

    app = new_app()

    @app.task
    def everywhere() -> None: ...

    @app.task(shared=False)
    def here() -> None: ...

    assert created == [app]
    assert shared == ["everywhere"]
    assert "extra" in app.tasks


def test_an_app_can_be_pickled_without_its_tasks() -> None:
    app = Celeriac("proj", broker="memory://", task_default_queue="q")

    copy = pickle.loads(pickle.dumps(app))

    assert (copy.main, copy.conf.broker_url, copy.conf.task_default_queue) == ("proj", "memory://", "q")


def test_a_task_is_pickled_by_its_name() -> None:
    task = pickle.loads(pickle.dumps(module_task))

    assert task is module_task


module_app = new_app()


@module_app.task
def module_task() -> None: ...


def test_used_as_a_context_the_app_closes_itself() -> None:
    with new_app() as app:

        @app.task
        def add() -> None: ...

        add.delay()
        transport = app.transport

    assert app._transport is None
    add.delay()
    assert app.transport is not transport


def test_the_app_knows_which_task_runs_here() -> None:
    app = new_app()
    seen = []

    @app.task(bind=True)
    def look(self: Any) -> None:
        seen.append((app.current_task is self, app.current_worker_task is self))

    look()
    look.apply()

    assert seen == [(True, False), (True, True)]
    assert app.current_task is None


def test_an_app_tells_of_a_fork_in_the_child() -> None:
    app = new_app()
    told: list[Any] = []
    app.on_after_fork.connect(lambda sender, **kwargs: told.append(sender), weak=False)

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"told" if told == [app] else b"not")
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "told"
    assert told == []


def test_a_subclass_may_make_the_class_of_tasks() -> None:
    class Tenant(Task[Any, Any]):
        tenant = "t1"

    class App(Celeriac):
        def create_task_cls(self) -> type[Any]:
            return self.subclass_with_self(Tenant, name="Task", attribute="_app", abstract=True)  # type: ignore[no-any-return]

    app = App("proj")

    @app.task
    def add() -> None: ...

    assert add.tenant == "t1"  # type: ignore[attr-defined]


def test_the_worker_command_has_to_be_named() -> None:
    with pytest.raises(ValueError, match="worker"):
        Celeriac("proj").worker_main(["beat"])


def test_periodic_calls_go_into_the_schedule_before_and_after_the_settings_are_read() -> None:
    app = new_app(beat_schedule={"mine": {"task": "x", "schedule": 1.0}})

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    early = app.add_periodic_task(10.0, add.s(2), args=(1,), expires=5)
    configured = app.configured
    schedule = dict(app.conf.beat_schedule)
    late = app.add_periodic_task(20.0, add.s(3, 4), name="named")

    assert not configured
    assert (early, late) == ("add(1, 2)", "named")
    assert sorted(schedule) == ["add(1, 2)", "mine"]
    assert schedule[early]["args"] == (1, 2)
    assert schedule[early]["options"] == {"expires": 5}
    assert sorted(app.conf.beat_schedule) == ["add(1, 2)", "mine", "named"]


def test_ids_of_apps_are_their_own_and_stay() -> None:
    one, two = new_app(), new_app()

    assert one.oid == one.oid != two.oid
    assert one.thread_oid == one.thread_oid != two.thread_oid


def test_what_is_kombus_is_asked_of_who_has_kombu() -> None:
    app = new_app()

    with pytest.raises(UsageError, match="amqp"):
        app.connection()
    with pytest.raises(UsageError, match="amqp"):
        app.send_task("x", connection=object())
