"""The app: its constructor, what it knows, how tasks are declared."""

import pickle

from celery import Celery, Task, current_app, shared_task
from quiz.asking import error, error_text, new_app, one, question


@question
def constructor_arguments_are_settings():
    app = Celery("x", broker="memory://a", backend="cache+memory://", include=["os"], task_serializer="yaml")
    conf = app.conf
    return conf.broker_url, conf.result_backend, list(conf.include), conf.task_serializer, app.main


@question
def changes_and_config_source_and_namespace():
    app = Celery(
        "x",
        changes={"task_serializer": "yaml"},
        config_source={"PROJ_TASK_SERIALIZER": "pickle", "PROJ_TIMEZONE": "Europe/Berlin"},
        namespace="PROJ",
    )
    return app.conf.task_serializer, app.conf.timezone, app.namespace


@question
def unknown_keywords_are_kept():
    return Celery("x", my_own=3).conf.my_own


@question
def the_repr_tells_the_name():
    return repr(Celery("proj")).partition(" ")[2], repr(Celery()).partition(" ")[2]


@question
def settings_are_read_at_the_first_look():
    app = Celery("x", config_source="no.such.module")
    app.conf.task_serializer = "yaml"
    before = app.configured
    return before, error(lambda: app.conf.timezone)


@question
def signals_of_configuration_come_in_order():
    app = new_app()
    heard = []
    app.on_configure.connect(lambda **kw: heard.append(("configure", sorted(kw))), weak=False)
    app.on_after_configure.connect(
        lambda sender, source, **kw: heard.append(("after", sender is app, source is app.conf)), weak=False
    )
    app.on_after_finalize.connect(lambda sender, **kw: heard.append(("final", sender is app)), weak=False)
    _ = app.conf.timezone
    _ = app.tasks
    app.finalize()
    return heard


@question
def every_app_has_the_standard_tasks():
    return sorted(name for name in new_app().tasks if name.startswith("celery."))


@question
def a_missing_task_is_not_registered():
    app = new_app()
    return error_text(lambda: app.tasks["nope"]), repr(error_of(lambda: app.tasks["nope"]))


def error_of(call):
    try:
        call()
    except Exception as exc:
        return exc
    return None


@question
def without_autofinalize_touching_tasks_is_an_error():
    app = Celery("x", autofinalize=False)
    before = error_text(lambda: app.tasks)
    app.finalize()
    return before, "celery.chord" in app.tasks


@question
def what_the_decorator_cannot_take():
    app = new_app()
    return error(app.task, 3), error(app.task, print, print), error_text(app.task, 3)


@question
def the_class_that_is_made_of_a_function():
    app = new_app()

    @app.task(name="t", my_own=1)
    def add(x: int, y: int = 2) -> int:
        """Add."""
        return x + y

    cls = add.__class__
    return {
        "names": [add.name, add.__name__, cls.__name__, cls.__module__],
        "doc": add.__doc__,
        "wrapped": add.__wrapped__(1, 2),
        "run": add.run(1),
        "call": add(1),
        "own": add.my_own,
        "annotations": sorted(add.__annotations__),
        "task": isinstance(add, Task),
        "app": add.app is app,
        "repr": repr(add),
        "bases": [base.__name__ for base in cls.__mro__ if base.__name__ != "Generic"][:2],
        "equal": app.tasks["t"] == add,
        "registered": isinstance(app.tasks["t"], Task),
    }


@question
def names_of_tasks():
    class Mine(Celery):
        def gen_task_name(self, name, module):
            return f"mine.{name}"

    def f():
        pass

    def g():
        pass

    f.__module__ = "__main__"
    g.__module__ = "pack.mod"
    return (
        [new_app("proj").task(f).name, new_app("proj").task(g).name, Mine("x").task(g).name],
        new_app("proj").gen_task_name("a", "b"),
    )


@question
def a_name_is_declared_once():
    app = new_app()

    # Shared, the one that Celery keeps is the one that a set happens to yield first.
    @app.task(name="declared-once", shared=False)
    def first():
        return 1

    @app.task(name="declared-once", shared=False)
    def second():
        return 2

    app.finalize()
    return second(), app.tasks["declared-once"]()


@question
def filter_has_the_last_word():
    app = new_app()
    made = app.task(name="t", filter=lambda task: ["filtered", task.name])(one)
    return list(made)


@question
def a_base_class_and_binding():
    app = new_app()

    class Base(Task):
        abstract = True
        answer = 42

        def __call__(self, *args, **kwargs):
            return ["called", self.run(*args, **kwargs)]

    @app.task(base=Base, bind=True)
    def me(self, x):
        return [self.name, self.answer, x]

    return me(3), me.apply((3,)).get()


@question
def task_cls_of_the_app():
    class Base(Task):
        answer = 42

    app = new_app(task_cls=Base)
    replaced = new_app()

    class Other(replaced.Task):
        answer = 43

    replaced.Task = Other
    return app.task(name="t")(one).answer, replaced.task(name="t")(one).answer


@question
def class_based_tasks():
    app = new_app()

    class Add(Task):
        def run(self, x, y):
            return x + y

    class Named(Task):
        name = "my-name"

        def run(self):
            return self.name

    made = app.register_task(Add())
    named = app.register_task(Named)
    return made.name, made(1, 2), made.apply((1, 2)).get(), named.name, named(), "my-name" in app.tasks


@question
def a_task_without_run():
    app = new_app()

    class Empty(Task):
        name = "empty"

    return error_text(app.register_task(Empty()))


@question
def tasks_are_shared_between_apps_unless_told_not_to():
    one = new_app("one")

    @one.task(name="shared-by-default")
    def f():
        pass

    @one.task(name="not-shared", shared=False)
    def g():
        pass

    one.finalize()
    two = new_app("two")
    return "shared-by-default" in two.tasks, "not-shared" in two.tasks


@question
def shared_tasks_belong_to_the_current_app():
    @shared_task(name="quiz.shared")
    def f(x):
        return x

    one = new_app("one")
    first = f.app.main
    two = new_app("two")
    second = f.app.main
    one.set_current()
    third = f.app.main
    two.close()
    return first, second, third, f.name, f(3), isinstance(f, Task), current_app.main


@question
def the_current_app_is_the_one_made_last():
    new_app("one")
    two = new_app("two")
    three = new_app("three", set_as_current=False)
    found = [current_app.main, current_app == two]
    three.set_current()
    return found, current_app.main


@question
def an_app_as_a_context():
    with Celery("x", set_as_current=False) as app:
        name = app.main
    return name


@question
def an_app_and_a_task_can_be_pickled():
    app = new_app("picklable", task_serializer="yaml")
    app.conf.timezone = "Europe/Berlin"
    again = pickle.loads(pickle.dumps(app))
    return again.main, again.conf.task_serializer, again.conf.timezone


@question
def annotations_change_attributes():
    app = new_app(task_annotations={"t": {"rate_limit": "10/s"}, "*": {"priority": 3}})
    other = new_app(task_annotations=[{"t": {"my_own": 1}}, {"t": {"my_own": 2, "time_limit": 7}}])
    app.finalize(), other.finalize()
    t, o = app.task(name="t")(one), other.task(name="t")(one)
    return t.rate_limit, t.priority, o.my_own, o.time_limit


@question
def annotations_wrap_methods():
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        heard.append([self.name, type(exc).__name__])

    heard = []
    app = new_app(task_annotations={"*": {"on_failure": on_failure}})

    @app.task(name="t")
    def fail():
        raise KeyError("x")

    fail.apply()
    return heard


@question
def times_of_an_app():
    utc, berlin = new_app(), new_app(timezone="Europe/Berlin")
    return {
        "utc": [str(utc.timezone), utc.uses_utc_timezone(), str(utc.now().tzinfo)],
        "berlin": [str(berlin.timezone), berlin.uses_utc_timezone(), str(berlin.now().tzinfo)],
    }


@question
def either_takes_the_first_that_is_given():
    app = new_app(task_serializer="yaml")
    return (
        app.either("task_serializer"),
        app.either("task_serializer", None, "x"),
        app.either("task_serializer", 0),
    )


@question
def what_the_attributes_are():
    app = new_app()
    return {
        "steps": sorted(app.steps),
        "user_options": sorted(app.user_options),
        "oid": [isinstance(app.oid, str), app.oid == app.oid, app.oid == new_app().oid],
        "thread_oid": [isinstance(app.thread_oid, str), app.thread_oid == app.thread_oid],
        "current_task": app.current_task,
        "current_worker_task": app.current_worker_task,
        "finalized": app.finalized,
        "strict": app.strict_typing,
        "set_as_current": app.set_as_current,
        "autofinalize": app.autofinalize,
        "clock": type(app.clock).__name__,
    }


@question
def classes_bound_to_the_app():
    app = new_app()
    return [
        (cls.__name__, cls.app is app) for cls in (app.AsyncResult, app.GroupResult, app.ResultSet, app.Task)
    ]


@question
def subclasses_with_the_app():
    app = new_app()

    class Thing:
        pass

    made = app.subclass_with_self(Thing, name="Other", attribute="a", x=1)
    return made.__name__, made.a is app, made.x, issubclass(made, Thing)


@question
def create_task_cls_can_be_overridden():
    class Mine(Celery):
        def create_task_cls(self):
            return self.subclass_with_self("celery.app.task:Task", name="MyTask", attribute="_app", x=7)

    return Mine("x").Task.x, Mine("x").Task.__name__


@question
def the_bug_report_tells_versions_and_settings():
    report = new_app(broker="redis://:sekrit@localhost/3").bugreport()
    return report.split()[0], "platform -> system:" in report, "sekrit" in report


@question
def worker_main_wants_the_command():
    return error(new_app().worker_main, ["-l", "info"])


@question
def security_has_to_be_asked_for_by_the_settings():
    return error(new_app().setup_security)


@question
def send_task_sends_in_spite_of_eager():
    import warnings

    app = new_app(task_always_eager=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = app.send_task("some.task", (1,), task_id="i")
    return result.id, [w.category.__name__ for w in caught if "Eager" in w.category.__name__], result.state


@question
def defaults_can_be_added_from_a_function():
    app = new_app()
    app.add_defaults(lambda: {"task_serializer": "yaml", "my_own": 1})
    app.add_defaults({"my_own": 2})
    return app.conf.task_serializer, app.conf.my_own


@question
def periodic_tasks_go_into_the_schedule():
    app = new_app()

    @app.task(name="t")
    def add(x, y):
        return x + y

    keys = [
        app.add_periodic_task(10.0, add.s(1, 2)),
        app.add_periodic_task(10.0, add.s(1, 2), name="named", expires=5),
    ]
    return keys, {key: [entry["task"], list(entry["args"])] for key, entry in app.conf.beat_schedule.items()}
